"""Where settings come from, which goes before which, and that all of Gunicorn's still do what they did."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter

import pytest

from tests.support.harness import PROMGUN, Page, PromgunProcess, Sandbox, is_alive, wait_until
from tests.support.http_client import Connection, Request, load, send

pytestmark = pytest.mark.seam

DEMO = "promgun.demo:app"
REQUESTS = "gunicorn_requests_total"


def printed(sandbox: Sandbox, *args: str, env: dict[str, str] | None = None) -> dict[str, str]:
    """Return what ``--print-config`` says, by setting."""
    ran = sandbox.run(*PROMGUN, DEMO, *args, "--print-config", env=env)
    assert ran.returncode == 0, ran.stderr
    return dict(re.findall(r"^(\w+) += (.*)$", ran.stdout, re.MULTILINE))


def test_flag_before_variable_before_cmd_args_before_file_before_default(sandbox: Sandbox) -> None:
    assert printed(sandbox)["graceful_timeout"] == "30"
    sandbox.write("gunicorn.conf.py", "graceful_timeout = 11\n")
    assert printed(sandbox)["graceful_timeout"] == "11"
    env = {"GUNICORN_CMD_ARGS": "--graceful-timeout 12"}
    assert printed(sandbox, env=env)["graceful_timeout"] == "12"
    env["PROMGUN_GRACEFUL_TIMEOUT"] = "13"
    assert printed(sandbox, env=env)["graceful_timeout"] == "13"
    assert printed(sandbox, "--graceful-timeout", "14", env=env)["graceful_timeout"] == "14"
    # A flag that says what the default says was given all the same.
    assert printed(sandbox, "--graceful-timeout", "30", env=env)["graceful_timeout"] == "30"


def test_our_own_options_come_from_everywhere_too(sandbox: Sandbox) -> None:
    assert printed(sandbox)["metrics_max_label_sets"] == "1000"
    sandbox.write("gunicorn.conf.py", "metrics_max_label_sets = 11\n")
    assert printed(sandbox)["metrics_max_label_sets"] == "11"
    env = {"GUNICORN_CMD_ARGS": "--metrics-max-label-sets 12"}
    assert printed(sandbox, env=env)["metrics_max_label_sets"] == "12"
    env["PROMGUN_METRICS_MAX_LABEL_SETS"] = "13"
    assert printed(sandbox, env=env)["metrics_max_label_sets"] == "13"
    assert printed(sandbox, "--metrics-max-label-sets", "14", env=env)["metrics_max_label_sets"] == "14"


def test_precedence_holds_in_a_server_and_across_hup() -> None:
    env = {"GUNICORN_CMD_ARGS": "--threads 3 --workers 3", "PROMGUN_WORKERS": "2"}
    config = "workers = 5\nthreads = 5\nmax_requests = {}\nmetrics_unique_memory = {}\n"
    unique = "gunicorn_worker_unique_memory_bytes"
    with (
        Sandbox() as sandbox,
        PromgunProcess("-k", "gthread", sandbox=sandbox, env=env, config=config.format(50, 0)) as server,
    ):
        before = server.workers()
        for left in (50, 60):
            page = server.fresh()
            assert page.value("gunicorn_workers", state="target") == 2
            assert set(page.by("worker_id", "gunicorn_worker_capacity").values()) == {3}
            assert set(page.by("worker_id", "gunicorn_worker_requests_left").values()) == {left}
            assert not page.select(unique)
            sandbox.write("gunicorn.conf.py", config.format(60, 0 if left == 50 else 1))
            server.send_signal(signal.SIGHUP)
            wait_until(lambda: not any(map(is_alive, before)))
            wait_until(lambda: server.scrape().value("gunicorn_workers", state="booted") == 2)
            wait_until(lambda: server.scrape().value("gunicorn_workers", state="alive") == 2)
        wait_until(lambda: len(server.scrape().select(unique)) == 2)


def test_a_configuration_file_is_read_as_it_is_now(sandbox: Sandbox) -> None:
    """Python's bytecode would be taken for current: the same size, and the same time of change."""
    path = sandbox.directory / "gunicorn.conf.py"
    for number in ("50", "60"):
        sandbox.write("gunicorn.conf.py", f"max_requests = {number}\n")
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert printed(sandbox, env={"PYTHONDONTWRITEBYTECODE": ""})["max_requests"] == number
    assert not (sandbox.directory / "__pycache__").exists()


def test_configuration_files_that_are_named(sandbox: Sandbox) -> None:
    sandbox.write("gunicorn.conf.py", "graceful_timeout = 1\n")
    sandbox.write("other.py", "graceful_timeout = 2\n")
    sandbox.write("package/__init__.py", "")
    sandbox.write("package/settings.py", "graceful_timeout = 3\n")
    assert printed(sandbox, "-c", "other.py")["graceful_timeout"] == "2"
    assert printed(sandbox, "--config", "python:package.settings")["graceful_timeout"] == "3"
    assert printed(sandbox, env={"GUNICORN_CMD_ARGS": "-c other.py"})["graceful_timeout"] == "2"
    assert printed(sandbox, env={"PROMGUN_CONFIG": "other.py"})["graceful_timeout"] == "2"


def test_buckets_are_those_that_were_asked_for() -> None:
    config = "metrics_size_buckets = [10, 20]\n"
    with PromgunProcess("--metrics-duration-buckets", "0.5,1.5", config=config) as server:
        send(server.address, path="/fast")
        server.expect(REQUESTS, 1)
        page = server.scrape()
        assert bounds(page, "gunicorn_request_duration_seconds_bucket") == ["0.5", "1.5", "+Inf"]
        assert bounds(page, "gunicorn_response_size_bytes_bucket") == ["10.0", "20.0", "+Inf"]


def bounds(page: Page, name: str) -> list[str]:
    """Return the upper bounds of a histogram, in the order of the page."""
    return [sample.labels["le"] for sample in page.select(name)]


def test_label_sets_are_bounded() -> None:
    with PromgunProcess("--metrics-max-label-sets", "3", app="probe:app") as server:
        for status in range(400, 420):
            assert send(server.address, path=f"/status/{status}").status == status
        server.expect(REQUESTS, 20)
        page = server.scrape()
        assert len(page.by("status", REQUESTS)) == 20  # a status is no free label: nothing to fold it into
        for number in range(20):
            send(server.address, "GET", f"/fail/Unknown{number}")
        server.expect("gunicorn_failed_requests_total", 20)


# -- ways to name the application --


@pytest.mark.parametrize(
    ("app", "answer"),
    [
        ("shapes:application", "application"),
        ("shapes", "application"),
        ("shapes:create_app()", "factory"),
        ("shapes:create_app('hello')", "hello"),
        ("shapes:create_app(greeting='hello')", "hello"),
    ],
)
def test_ways_to_name_an_application(app: str, answer: str) -> None:
    with PromgunProcess(app=app) as server:
        assert send(server.address).text == answer
        server.expect(REQUESTS, 1)
        (run,) = server.sandbox.runs()
        assert run["application"] == app


def test_application_of_a_package_in_another_folder(sandbox: Sandbox) -> None:
    sandbox.write("project/shop/__init__.py", "")
    sandbox.write("project/shop/web.py", "from shapes import create_app\napp = create_app('shop')\n")
    with PromgunProcess("--chdir", "project", app="shop.web:app", sandbox=sandbox) as server:
        assert send(server.address).text == "shop"
        server.expect(REQUESTS, 1)
    with PromgunProcess("--pythonpath", "project", app="shop.web:app", sandbox=sandbox) as server:
        assert send(server.address).text == "shop"


def test_application_that_the_configuration_names(sandbox: Sandbox) -> None:
    sandbox.write("gunicorn.conf.py", "wsgi_app = 'shapes:application'\n")
    with PromgunProcess(app=None, sandbox=sandbox) as server:
        assert send(server.address).text == "application"
    with PromgunProcess(app=None, sandbox=sandbox, env={"PROMGUN_APP": "shapes:create_app()"}) as server:
        assert send(server.address).text == "factory"
    with PromgunProcess(app="shapes:create_app('named')", sandbox=sandbox) as server:
        assert send(server.address).text == "named"


# -- worker classes --


@pytest.mark.parametrize(
    ("worker_class", "worker_type"),
    [
        ("sync", "sync"),
        ("egg:gunicorn#gthread", "gthread"),
        ("gunicorn.workers.sync.SyncWorker", "sync"),
        ("gunicorn.workers.ggevent.GeventWorker", "gevent"),
        ("promgun.PrometheusThreadWorker", "gthread"),
        ("own_worker.PoliteThreaded", "own_worker.PoliteThreaded"),
        ("own_worker.PoliteSyncWorker", "own_worker.PoliteSyncWorker"),
    ],
)
def test_worker_classes_of_every_spelling_are_measured(worker_class: str, worker_type: str) -> None:
    args = ("--worker-class", worker_class, "--log-level", "debug")
    with PromgunProcess(*args, app="probe:app", workers=2) as server:
        requests = [Request("/ok"), Request("/status/404"), Request("/fail/ValueError")] * 4
        assert load(server.address, requests) == Counter({200: 4, 404: 4, 500: 4})
        server.expect(REQUESTS, 12)
        server.expect("gunicorn_failed_requests_total", 4, error_type="ValueError")
        assert server.scrape().value("gunicorn_info", worker_type=worker_type) == 1
        assert f"Using worker: {worker_class}\n" in server.log
        assert f"  worker_class: {worker_class}\n" in server.log, "the list of settings"
        assert "promgun.workers" not in server.log
        assert re.findall(r"^  (metrics_\w+):", server.log, re.MULTILINE) == ["metrics_bind"], "only what was changed"


def test_sync_with_threads_becomes_gthread() -> None:
    with Sandbox() as sandbox, PromgunProcess("--threads", "2", app="probe:app", sandbox=sandbox) as server:
        connections = [Connection(server.address) for _ in range(2)]
        for connection in connections:
            connection.socket.sendall(Request("/gate/open").encode("1.1", keepalive=False))
        server.expect("gunicorn_worker_requests_in_progress", 2)
        sandbox.write("open", "")
        for connection in connections:
            assert connection.read_response().status == 200
            connection.close()
        server.expect(REQUESTS, 2)
        page = server.scrape()
        assert page.value("gunicorn_worker_capacity") == 2
        assert page.value("gunicorn_info", worker_type="gthread") == 1
        assert "Using worker: gthread\n" in server.log


# -- hooks --


def test_every_hook_of_the_user_is_called(worker_type: str) -> None:
    with Sandbox() as sandbox:
        args = ("-k", worker_type, "-c", "python:hooks_config", "--timeout", "3")
        with PromgunProcess(*args, app="probe:app", sandbox=sandbox) as server:
            assert load(server.address, 3, path="/ok") == {200: 3}
            server.expect(REQUESTS, 3)
            called = hooks(sandbox)
            assert called["pre_request"] == called["post_request"] == 3
            assert called["on_starting"] == called["when_ready"] == called["nworkers_changed"] == 1
            assert called["pre_fork"] == called["post_fork"] == called["post_worker_init"] == 1

            server.send_signal(signal.SIGHUP)
            wait_until(lambda: hooks(sandbox)["child_exit"] == 1)
            assert hooks(sandbox)["on_reload"] == hooks(sandbox)["worker_exit"] == 1
            wait_until(lambda: hooks(sandbox)["post_worker_init"] == 2)

            (worker,) = wait_until(server.workers)
            server.send_signal(signal.SIGABRT, worker)
            wait_until(lambda: hooks(sandbox)["worker_abort"] == 1)
            wait_until(lambda: hooks(sandbox)["post_worker_init"] == 3)
            (worker,) = wait_until(lambda: [pid for pid in server.workers() if pid != worker])
            server.send_signal(signal.SIGINT, worker)
            wait_until(lambda: hooks(sandbox)["worker_int"] == 1)
            wait_until(lambda: hooks(sandbox)["post_worker_init"] == 4)
            assert "pre_exec" not in hooks(sandbox)
            assert "on_exit" not in hooks(sandbox)
        assert hooks(sandbox)["on_exit"] == 1


def hooks(sandbox: Sandbox) -> Counter[str]:
    """Return how often each hook was called."""
    return Counter(line.split()[0] for line in (sandbox.directory / "hooks.log").read_text().splitlines())


def test_hook_before_the_execution_of_a_new_master() -> None:
    with Sandbox() as sandbox:
        with PromgunProcess("-c", "python:hooks_config", sandbox=sandbox) as server:
            old = server.master_pid
            server.send_signal(signal.SIGUSR2)
            wait_until(lambda: server.master_pid != old)
            wait_until(lambda: hooks(sandbox)["post_worker_init"] == 2)
            assert hooks(sandbox)["pre_exec"] == 1
        assert hooks(sandbox)["on_exit"] == 2


def test_hooks_see_the_answer_and_may_fail() -> None:
    config = """
def post_request(worker, req, environ, resp):
    worker.log.info("seen %s %s", req.path, resp.status_code)
    raise RuntimeError("the hook fails")
"""
    with PromgunProcess(app="probe:app", config=config) as server:
        assert send(server.address, path="/status/404").status == 404
        assert send(server.address, path="/ok").status == 200
        server.expect(REQUESTS, 2)
        assert server.scrape().by("status", REQUESTS) == {"404": 1, "200": 1}
        assert "seen /status/404 404" in server.log
