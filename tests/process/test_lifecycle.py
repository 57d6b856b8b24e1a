"""Starting, stopping, reloading, resizing, and being killed, on every worker type."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import psutil
import pytest

from tests.support.harness import Page, PromgunProcess, Sandbox, is_alive, wait_until
from tests.support.http_client import Connection, Request, load, send
from tests.support.watch import Watch

pytestmark = pytest.mark.seam

REQUESTS = "gunicorn_requests_total"
EXITS = "gunicorn_worker_exits_total"
NOBODY = 65534
needs_root = pytest.mark.needs_root("change user")
#: What only the master does: a type with threads or greenlets of its own brings nothing new.
MASTERS_AFFAIR = pytest.mark.parametrize("worker_type", ["sync", "gevent"])


def probe(worker_type: str, *args: str, **options: object) -> PromgunProcess:
    """Return a server of the probe application."""
    threads = ("--threads", "4") if worker_type == "gthread" else ()
    return PromgunProcess("-k", worker_type, *threads, *args, app="probe:app", **options)  # type: ignore[arg-type]


def wait_for_workers(server: PromgunProcess, count: int) -> list[int]:
    """Wait until so many workers live and have booted, and return their pids."""
    wait_until(
        lambda: server.scrape().by("state", "gunicorn_workers") == {"target": count, "alive": count, "booted": count}
    )
    return wait_until(lambda: workers if len(workers := server.workers()) == count else None)


# -- stopping --


def test_term_lets_running_requests_finish_and_scrapes_answer_meanwhile(worker_type: str) -> None:
    with Sandbox() as sandbox, probe(worker_type, sandbox=sandbox) as server:
        with Connection(server.address) as connection:
            connection.socket.sendall(Request("/gate/open").encode("1.1", keepalive=False))
            wait_until((sandbox.directory / "open.waiting").exists)
            server.send_signal(signal.SIGTERM)
            wait_until(lambda: "Handling signal: term" in server.log)
            wait_until(lambda: server.scrape().by("state", "gunicorn_worker_state") == {"draining": 1})
            assert server.fresh().sum("gunicorn_worker_requests_in_progress") == 1
            sandbox.write("open", "")
            assert connection.read_response().text == "ok"
        assert server.wait() == 0
    assert "Traceback" not in server.log


def refuses(address: object) -> bool:
    """Tell whether nobody listens any more."""
    with socket.socket() as probing:
        return probing.connect_ex(address) != 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("worker_type", "number"),
    [
        # The master sends workers SIGQUIT on either.
        ("sync", signal.SIGQUIT),
        ("sync", signal.SIGINT),
        ("gthread", signal.SIGINT),
        ("gevent", signal.SIGINT),
        ("eventlet", signal.SIGINT),
    ],
)
def test_quick_stop_does_not_wait_for_requests(worker_type: str, number: signal.Signals) -> None:
    # A thread in the application cannot be interrupted: gthread, Gunicorn's too, is killed in the end.
    with (
        Sandbox() as sandbox,
        probe(worker_type, "--graceful-timeout", "3", sandbox=sandbox) as server,
        Connection(server.address) as connection,
    ):
        connection.socket.sendall(Request("/gate/never").encode("1.1", keepalive=False))
        wait_until((sandbox.directory / "never.waiting").exists)
        assert server.stop(number) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_signal_to_the_whole_group_ends_all(worker_type: str, number: signal.Signals) -> None:
    # Each worker gets the signal twice, which Gunicorn's gthread (27.0) now and then does not survive unkilled.
    with probe(worker_type, "--graceful-timeout", "3", workers=2) as server:
        send(server.address, path="/ok")
        os.killpg(server.process.pid, number)
        assert server.wait() == 0


# -- reloading --


def test_hup_reads_the_configuration_again_and_metrics_go_on(worker_type: str) -> None:
    config = "workers = {}\nraw_env = ['COLOUR={}']\n"
    with Sandbox() as sandbox, probe(worker_type, sandbox=sandbox, config=config.format(1, "red")) as server:
        before = server.workers()
        assert send(server.address, path="/facts?COLOUR").text.split()[-1] == "red"
        server.expect(REQUESTS, 1)
        with Watch(server.metrics_address) as watch:
            sandbox.write("gunicorn.conf.py", config.format(2, "blue"))
            server.send_signal(signal.SIGHUP)
            wait_until(lambda: not any(map(is_alive, before)))
            wait_for_workers(server, 2)
            assert send(server.address, path="/facts?COLOUR").text.split()[-1] == "blue"
            server.expect(REQUESTS, 2)
        watch.assert_flawless()
        server.expect("gunicorn_master_signals_total", 1, signal="hup")
        server.expect("gunicorn_worker_spawns_total", 3)


def test_hup_under_load_loses_no_request(worker_type: str) -> None:
    with probe(worker_type, workers=2) as server:
        answers: list[object] = []
        before = server.workers()
        requests = [Request("/sleep/0.005")] * 400
        sender = Thread(target=lambda: answers.append(load(server.address, requests, keepalive=False)))
        sender.start()
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: not any(map(is_alive, before)))
        sender.join(60)
        assert answers == [{200: 400}]
        server.expect(REQUESTS, 400)


def test_hup_with_a_bad_configuration_changes_nothing() -> None:
    with Sandbox() as sandbox, PromgunProcess(sandbox=sandbox, config="workers = 1\n") as server:
        before = server.workers()
        for bad in ("workers = 'many'\n", "import nothing_of_this_name\n", "worker_class = 'gevnt'\n"):
            sandbox.write("gunicorn.conf.py", bad)
            told = len(server.log)
            server.send_signal(signal.SIGHUP)
            wait_until(lambda told=told: "[ERROR]" in server.log[told:])  # type: ignore[misc]
            assert send(server.address, path="/fast").status == 200
            assert server.workers() == before
        server.expect(REQUESTS, 3)
        sandbox.write("gunicorn.conf.py", "workers = 2\n")
        server.send_signal(signal.SIGHUP)
        wait_for_workers(server, 2)


def test_hup_with_a_bad_configuration_leaves_the_environment_of_the_master() -> None:
    """Gunicorn takes ``raw_env`` back before it reads the configuration again."""
    hook = "def pre_fork(server, worker): open('seen', 'a').write(os.environ.get('KEPT', 'none'))\n"
    config = f"import os\nraw_env = ['KEPT=1']\n{hook}"
    with Sandbox() as sandbox, PromgunProcess(sandbox=sandbox, config=config) as server:
        sandbox.write("gunicorn.conf.py", "raw_env = ['KEPT=2']\nworkers = 'many'\n")
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: "Reload refused" in server.log)
        seen = sandbox.directory / "seen"
        first = seen.read_text()
        os.kill(server.workers()[0], signal.SIGKILL)
        wait_until(lambda: seen.read_text() != first)
        assert seen.read_text() == 2 * first


def test_hup_moves_the_metrics_address() -> None:
    with Sandbox() as sandbox:
        path = sandbox.directory / "moved.sock"
        config = "metrics_bind = ['127.0.0.1:0']\n"
        with PromgunProcess(sandbox=sandbox, config=config, metrics=None) as server:
            old = wait_until(lambda: server.metrics_address if "Metrics at" in server.log else None)
            wait_until(lambda: server.scrape().sum("gunicorn_workers", state="booted"))
            sandbox.write("gunicorn.conf.py", f"metrics_bind = ['unix:{path}']\n")
            server.send_signal(signal.SIGHUP)
            wait_until(lambda: server.metrics_address == str(path))
            wait_until(lambda: server.scrape().sum("gunicorn_up") == 1)
            wait_until(lambda: refuses(old))
            assert server.dump().value("gunicorn_up") == 1
        assert not path.exists()


# -- resizing, logs --


def test_ttin_and_ttou_change_the_number_of_workers(worker_type: str) -> None:
    with probe(worker_type) as server:
        for number, count in ((signal.SIGTTIN, 2), (signal.SIGTTIN, 3), (signal.SIGTTOU, 2)):
            server.send_signal(number)
            wait_for_workers(server, count)
        assert load(server.address, 20, path="/ok") == {200: 20}
        server.expect(REQUESTS, 20)
        server.send_signal(signal.SIGTTOU)
        wait_for_workers(server, 1)
        server.expect(REQUESTS, 20)
        page = server.fresh()
        assert page.by("signal", "gunicorn_master_signals_total") == {"ttin": 2, "ttou": 2}
        assert len(page.select("gunicorn_worker_capacity")) == 1


@MASTERS_AFFAIR
def test_usr1_reopens_the_logs(worker_type: str) -> None:
    with Sandbox() as sandbox:
        log, moved = sandbox.directory / "access.log", sandbox.directory / "moved.log"
        with probe(worker_type, "--access-logfile", str(log), sandbox=sandbox) as server:
            before = server.workers()
            send(server.address, path="/ok?one")
            wait_until(lambda: "/ok?one" in log.read_text())
            log.rename(moved)
            server.send_signal(signal.SIGUSR1)
            wait_until(log.exists)
            wait_until(lambda: send(server.address, path="/ok?two") and "/ok?two" in log.read_text())
            assert server.workers() == before
            server.expect("gunicorn_master_signals_total", 1, signal="usr1")


# -- workers that end --


def all_replaced(page: Page) -> bool:
    """Tell whether two workers live and each that ended was counted."""
    return page.sum(EXITS) == page.sum("gunicorn_worker_spawns_total") - 2


def test_max_requests_recycles_workers_and_loses_no_count(worker_type: str) -> None:
    with probe(worker_type, "--max-requests", "7", workers=2) as server:
        answered = 0

        def recycled() -> bool:
            # Async workers look at their count once a second.
            nonlocal answered
            answered += load(server.address, 10, concurrency=2, path="/ok", keepalive=False)[200]
            return server.scrape().sum("gunicorn_worker_spawns_total") >= 6

        wait_until(recycled)
        server.expect(REQUESTS, answered)
        server.expect("gunicorn_worker_requests_total", answered)
        wait_for_workers(server, 2)
        page = wait_until(lambda: page if all_replaced(page := server.scrape()) else None)
        assert page.by("cause", EXITS).keys() == {"max_requests"}
        assert not page.by("cause", "gunicorn_requests_lost_total")
        # Slots are used again: a master, two workers, and one that boots while its predecessor still leaves.
        assert page.sum("promgun_store_slots") <= 4
        assert set(page.by("worker_id", "gunicorn_worker_requests_total")) <= {"1", "2", "3"}


def test_killed_worker_is_replaced_and_its_counts_stay(worker_type: str) -> None:
    with Sandbox() as sandbox, probe(worker_type, sandbox=sandbox) as server:
        assert load(server.address, 10, path="/ok") == {200: 10}
        server.expect(REQUESTS, 10)
        with Watch(server.metrics_address) as watch, Connection(server.address) as connection:
            connection.socket.sendall(Request("/gate/never").encode("1.1", keepalive=False))
            server.expect("gunicorn_worker_requests_in_progress", 1)
            (worker,) = server.workers()
            server.send_signal(signal.SIGKILL, worker)
            wait_until(lambda: not is_alive(worker))
            wait_for_workers(server, 1)
            server.expect("gunicorn_worker_requests_in_progress", 0)
            assert server.scrape().by("state", "gunicorn_worker_state") == {"idle": 1}
            assert load(server.address, 5, path="/ok") == {200: 5}
            server.expect(REQUESTS, 15)
        watch.assert_flawless()
        assert server.scrape().sum("promgun_store_slots") == 1


def test_worker_that_hangs_is_seen_and_replaced() -> None:
    with Sandbox() as sandbox, probe("sync", "--timeout", "2", sandbox=sandbox) as server:
        with Connection(server.address) as connection:
            connection.socket.sendall(Request("/gate/never").encode("1.1", keepalive=False))
            wait_until(lambda: server.scrape().by("state", "gunicorn_worker_state") == {"hung": 1})
            (worker,) = server.workers()
            wait_until(lambda: not is_alive(worker))
        wait_for_workers(server, 1)
        assert send(server.address, path="/ok").status == 200
        server.expect(REQUESTS, 1, status=200)
        server.expect("gunicorn_worker_requests_in_progress", 0)


@MASTERS_AFFAIR
def test_killed_metrics_process_is_back(worker_type: str) -> None:
    with probe(worker_type) as server:
        assert load(server.address, 10, path="/ok") == {200: 10}
        server.expect(REQUESTS, 10)
        workers = server.workers()
        for _ in range(2):
            killed = wait_until(server.metrics_pid)
            server.send_signal(signal.SIGKILL, killed)
            wait_until(lambda killed=killed: server.metrics_pid() not in {None, killed})  # type: ignore[misc]
            wait_until(lambda: server.scrape().sum(REQUESTS) == 10)
        assert server.workers() == workers


@contextmanager
def held(store: Path) -> Iterator[None]:
    """Hold a store's lock as a master does: a server that another test starts must not sweep it."""
    lock = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


@MASTERS_AFFAIR
def test_killed_master_takes_all_with_it_and_the_next_start_sweeps(worker_type: str) -> None:
    with Sandbox(clean=False) as sandbox:
        with probe(worker_type, sandbox=sandbox, workers=2) as server:
            send(server.address, path="/ok")
            (run,) = sandbox.runs()
            pids = [*server.workers(), server.metrics_pid()]
            assert len(pids) == 3
            with held(Path(run["store"])):
                server.send_signal(signal.SIGKILL)
                assert server.wait() == -signal.SIGKILL
                wait_until(lambda: not any(is_alive(pid) for pid in pids if pid))
                assert Path(run["store"]).exists()
        with probe(worker_type, sandbox=sandbox) as server:
            assert not Path(run["store"]).exists()
            assert [entry["pid"] for entry in sandbox.runs()] == [server.master_pid]
            assert server.dump().sum(REQUESTS) == 0


# -- ways to run --


@MASTERS_AFFAIR
def test_daemon_with_a_pid_file(worker_type: str) -> None:
    with Sandbox() as sandbox:
        pidfile = sandbox.directory / "pid"
        args = ("--daemon", "--enable-stdio-inheritance", "--pid", str(pidfile))
        with probe(worker_type, *args, sandbox=sandbox) as server:
            assert server.wait() == 0
            assert int(pidfile.read_text()) == server.master_pid != server.process.pid
            assert send(server.address, path="/ok").status == 200
            server.expect(REQUESTS, 1)
            assert server.dump().sum(REQUESTS) == 1
            (run,) = sandbox.runs()
            assert run["pid"] == server.master_pid
        assert not pidfile.exists()
        assert not Path(run["store"]).exists()


@MASTERS_AFFAIR
@needs_root
def test_workers_and_metrics_process_run_as_the_user(worker_type: str) -> None:
    with Sandbox() as sandbox:
        with probe(worker_type, "--user", "nobody", "--group", "nogroup", sandbox=sandbox, workers=2) as server:
            pid, _, uid, gid, _ = send(server.address, path="/facts").text.split()
            assert int(pid) in server.workers()
            assert (int(uid), int(gid)) == (NOBODY, NOBODY)
            server.expect(REQUESTS, 1)
            metrics_pid = server.metrics_pid()
            assert metrics_pid
            assert psutil.Process(metrics_pid).uids().effective == NOBODY
            (run,) = sandbox.runs()
            store = Path(run["store"])
            # What the master writes lies where only root writes; what workers write is theirs alone.
            for part, owner, mode in (("", 0, 0o711), ("master", 0, 0o750), ("slots", NOBODY, 0o700)):
                status = (store / part).stat()
                assert (status.st_uid, status.st_mode & 0o777) == (owner, mode)
            page = server.fresh()
            assert page.sum("promgun_store_errors_total") == 0
            assert page.sum("gunicorn_worker_resident_memory_bytes") > 0
            server.send_signal(signal.SIGHUP)
            server.expect("gunicorn_worker_spawns_total", 4)
        assert not store.exists()


def test_objects_of_the_application_are_finalized_at_the_end_of_a_worker(sandbox: Sandbox) -> None:
    """What promgun has loaded is left to the kernel; buffered files and temporary ones of the application are not."""
    sandbox.write(
        "owns.py",
        """
import os, tempfile

class Cycle:
    def __init__(self):
        self.itself = self
        self.file = tempfile.NamedTemporaryFile(prefix="temporary-", dir=".")

cycle = Cycle()
log = open("log-" + str(os.getpid()), "w")
log.write("buffered")

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"%d" % __import__("gc").get_freeze_count()]
""",
    )
    with PromgunProcess(app="owns:app", sandbox=sandbox, workers=1) as server:
        (worker,) = server.workers()
        assert int(send(server.address).body) > 10_000
        assert list(sandbox.directory.glob("temporary-*"))
        assert server.stop() == 0
    assert not list(sandbox.directory.glob("temporary-*"))
    assert (sandbox.directory / f"log-{worker}").read_text() == "buffered"


def test_preloaded_application_on_a_port_of_each_worker(worker_type: str) -> None:
    with socket.socket() as holder:
        # Bound and not listening: it keeps the port for the server and gets no connections.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        host, port = holder.getsockname()
        with probe(worker_type, "--preload", "--reuse-port", bind=f"{host}:{port}", workers=2) as server:
            statuses = load((host, port), 40, path="/ok", keepalive=False)
            assert statuses == {200: 40}
            server.expect(REQUESTS, 40)


def test_unix_sockets(worker_type: str) -> None:
    with Sandbox() as sandbox:
        application, metrics = sandbox.directory / "app.sock", sandbox.directory / "metrics.sock"
        with probe(worker_type, sandbox=sandbox, bind=f"unix:{application}", metrics=f"unix:{metrics}") as server:
            assert load(server.address, 20, path="/ok") == {200: 20}
            assert server.metrics_address == str(metrics)
            server.expect(REQUESTS, 20)
            assert server.dump().sum(REQUESTS) == 20
            # The peer has no address there, and Gunicorn trusts it: the client is whom the proxy names last.
            forwarded = Request("/gate/held", headers=[("X-Forwarded-For", "203.0.113.9, 192.0.2.7")])
            with Connection(server.address) as connection:
                connection.socket.sendall(forwarded.encode("1.1", keepalive=False))
                wait_until((sandbox.directory / "held.waiting").exists)
                for pid in server.workers():
                    server.send_signal(signal.SIGKILL, pid)
                wait_until(lambda: "while serving: GET /gate/held from 192.0.2.7, " in server.log)
        assert not application.exists()
        assert not metrics.exists()


def test_several_addresses() -> None:
    binds = ("--bind", "[::1]:0", "--metrics-bind", "[::1]:0")
    with PromgunProcess(*binds) as server:
        assert [send(address, path="/fast").status for address in server.addresses] == [200, 200]
        server.expect(REQUESTS, 2)
        (run,) = server.sandbox.runs()
        assert len(run["metrics_addresses"]) == 2
        for url in run["metrics_addresses"]:
            page = server.dump("--url", url)
            assert page.sum(REQUESTS) == 2
