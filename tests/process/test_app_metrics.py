"""The application's own prometheus_client metrics stand on the same page, aggregated, with no set-up in it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import PromgunProcess, Sandbox, is_alive, wait_until
from tests.support.http_client import Request, load, send
from tests.support.sandbox import WORKER_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.seam

REQUESTS = "gunicorn_requests_total"


def counting(worker_type: str, *args: str, **options: object) -> PromgunProcess:
    """Return a server of the counting application with two workers."""
    threads = ("--threads", "4") if worker_type == "gthread" else ()
    return PromgunProcess("-k", worker_type, *threads, *args, app="counting:app", workers=2, **options)  # type: ignore[arg-type]


PRELOADED = [("sync", ("--preload",)), ("gevent", ("--preload",))]


@pytest.mark.parametrize(
    ("worker_type", "preload"),
    [*((kind, ()) for kind in WORKER_TYPES), *PRELOADED],
    ids=[*WORKER_TYPES, *(f"{kind}-preload" for kind, _ in PRELOADED)],
)
def test_metrics_of_all_workers_are_one_and_go_on_in_new_ones(worker_type: str, preload: tuple[str, ...]) -> None:
    with counting(worker_type, *preload) as server:
        requests = [Request("/book")] * 30 + [Request("/pen")] * 10
        assert load(server.address, requests, concurrency=8, keepalive=False) == {200: 40}
        server.expect("shop_orders_total", 40)
        page = server.fresh()
        assert page.by("kind", "shop_orders_total") == {"book": 30, "pen": 10}
        assert page.value("shop_basket_euros_count") == 40
        assert page.value("shop_basket_euros_sum") == 2000
        assert page.value("shop_basket_euros_bucket", le="10.0") == 0
        assert page.value("shop_basket_euros_bucket", le="100.0") == 40
        assert page.value("shop_payment_seconds_count") == 40
        assert page.value("shop_payment_seconds_sum") == 10
        assert page.value("shop_peak") == 7
        # Each worker that took an order holds one open cart.
        busy = len(page.by("worker_id", "gunicorn_worker_requests_total"))
        assert page.value("shop_carts") == busy
        types = {name: page.families[name].type for name in ("shop_orders", "shop_basket_euros", "shop_carts")}
        assert types == {"shop_orders": "counter", "shop_basket_euros": "histogram", "shop_carts": "gauge"}
        assert page.families["shop_orders"].documentation
        before = server.workers()
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: not any(map(is_alive, before)))
        wait_until(lambda: server.scrape().value("gunicorn_workers", state="booted") == 2)
        page = server.fresh()
        assert page.sum("shop_orders_total") == 40
        assert page.sum("shop_carts") == 0  # a live gauge goes with its worker
        assert page.value("shop_peak") == 7
        assert load(server.address, 20, path="/pen", keepalive=False) == {200: 20}
        server.expect("shop_orders_total", 60)


def test_orders_of_the_demo(demo: PromgunProcess) -> None:
    for kind in ("book", "book", "pen"):
        assert send(demo.address, path=f"/order/{kind}").status == 201
    assert send(demo.address, path="/order/car").status == 400
    demo.expect("demo_orders_total", 3)
    demo.expect("gunicorn_requests_total", 4, route="/order/{kind}")
    assert demo.scrape().by("kind", "demo_orders_total") == {"book": 2, "pen": 1}


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/", 200, "/order/book"),
        ("/fast", 200, "fast"),
        ("/slow?seconds=0.01", 200, "slept 0.01 s"),
        ("/slow?seconds=11", 400, "between 0 and 10"),
        ("/slow?seconds=nan", 400, "between 0 and 10"),
        ("/slow?seconds=soon", 400, "soon"),
        ("/fail", 500, ""),
        ("/status/418", 418, "418"),
        ("/status/599", 599, "599"),
        ("/status/204", 204, ""),
        ("/status/100", 400, "between 200 and 599"),
        ("/status/teapot", 400, "teapot"),
        ("/stream?chunks=2", 200, "chunk 0\nchunk 1\n"),
        ("/stream?chunks=-1", 400, "between 0"),
        ("/file", 200, "/file"),
        ("/nothing", 404, "/ lists them"),
    ],
)
def test_routes_of_the_demo(demo: PromgunProcess, path: str, status: int, body: str) -> None:
    response = send(demo.address, path=path)
    assert response.status == status
    assert body in response.text


def test_demo_reads_a_body(demo: PromgunProcess) -> None:
    assert send(demo.address, "POST", "/echo", body=b"x" * 200_000).text == "200000\n"


@pytest.fixture(scope="module")
def demo() -> Iterator[PromgunProcess]:
    """Run the demo once for the tests that only look at its answers."""
    with PromgunProcess() as server:
        yield server


def test_directory_that_the_user_names(sandbox: Sandbox) -> None:
    store = sandbox.directory / "named" / "store"
    store.mkdir(parents=True, mode=0o700)
    (store / "counter_4711.db").write_bytes(b"left by an earlier run")
    (store / "notes.txt").write_text("the user's own")
    for args, env in (
        (("--metrics-dir", str(store)), {}),
        ((), {"PROMETHEUS_MULTIPROC_DIR": str(store)}),
        ((), {"PROMGUN_METRICS_DIR": str(store)}),
    ):
        with counting("sync", *args, env=env, sandbox=sandbox) as server:
            assert load(server.address, 10, path="/book") == {200: 10}
            server.expect("shop_orders_total", 10)
            (run,) = sandbox.runs()
            # What a variable names belongs to stock readers: the store is elsewhere.
            is_ours = "PROMETHEUS_MULTIPROC_DIR" not in env
            assert (Path(run["store"]) == store / ".promgun") is is_ours
            named = str(store) if is_ours else run["store"]
            assert sandbox_dump(sandbox, "--dir", named).count("shop_orders_total{") == 1
            stock = (
                "from prometheus_client import CollectorRegistry, generate_latest, multiprocess\n"
                "registry = CollectorRegistry()\n"
                f"multiprocess.MultiProcessCollector(registry, {str(store)!r})\n"
                "print(generate_latest(registry).decode())\n"
            )
            ran = sandbox.run("-c", stock)
            assert 'shop_orders_total{kind="book"} 10.0' in ran.stdout, ran.stderr
        assert (store / "notes.txt").read_text() == "the user's own"
        assert not (store / "counter_4711.db").exists()


def sandbox_dump(sandbox: Sandbox, *args: str) -> str:
    """Return what ``promgun metrics dump`` prints."""
    ran = sandbox.run("-m", "promgun", "metrics", "dump", *args)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_what_is_set_as_for_stock_prometheus_client_works_or_is_told_once(sandbox: Sandbox) -> None:
    """The directory in ``raw_env`` gets links; a later change of it, and another value class, are a warning each. So
    is a gauge's function that ends the process, in each worker, and a second metric of one name.
    """
    named = sandbox.directory / "named"
    named.mkdir(mode=0o700)
    config = f"raw_env = ['PROMETHEUS_MULTIPROC_DIR={named}']\nlogger_class = 'resetting.OwnLogger'\n"
    with PromgunProcess(app="resetting:app", config=config, sandbox=sandbox, workers=2) as server:
        assert load(server.address, 10, path="/change") == {200: 10}
        server.expect("shop_orders_total", 10)
        assert {path.name.partition("_")[0] for path in named.glob("*.db")} == {"counter", "gauge"}
        workers = [f"[{pid}] [WARNING]" for pid in server.workers()]
        wait_until(lambda: "ValueClass" in server.log)
        page = server.fresh()
        assert server.log.count("PROMETHEUS_MULTIPROC_DIR names") == 1
        assert server.log.count("has replaced prometheus_client.values.ValueClass") == 1
        assert server.log.count("The function of the gauge 'shop_stock' raised SystemExit") == 2
        assert server.log.count("The application's metric 'shop_orders_total' is not on the page") == 1
        assert sum(server.log.count(beginning) for beginning in workers) == 4
        assert page.value("gunicorn_log_messages_total", level="warning") == 4
        assert load(server.address, 3, path="/fail") == {500: 3}
        server.expect("gunicorn_log_messages_total", 3, level="error")
        server.send_signal(signal.SIGKILL, server.workers()[0])
        # The master's line, by the method that goes past Gunicorn's logger.
        server.expect("gunicorn_log_messages_total", 4, level="error")
