"""Every end of a worker, counted once under the right cause, on every worker type."""

from __future__ import annotations

import contextlib
import re
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import gunicorn
import pytest

from tests.support.counted import Counted
from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import Connection, Request, load, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.seam

EXITS = "gunicorn_worker_exits_total"
LOST = "gunicorn_requests_lost_total"
#: A real-time signal that Python has no name for.
NAMELESS = 40
#: For an end that only the master sees: a type with threads or greenlets of its own brings nothing new.
MASTERS_AFFAIR = pytest.mark.parametrize("worker_type", ["sync", "gevent"])


def probe(worker_type: str, *args: str, **options: object) -> PromgunProcess:
    """Return a server of the probe application with two workers."""
    threads = ("--threads", "4") if worker_type == "gthread" else ()
    options = {"workers": 2, "app": "probe:app"} | options
    return PromgunProcess("-k", worker_type, *threads, *args, **options)  # type: ignore[arg-type]


def settled(server: PromgunProcess, workers: int = 2) -> None:
    """Wait until so many workers are there, booted, and nobody drains."""
    wait_until(
        lambda: (
            server.scrape().by("state", "gunicorn_workers") == {"target": workers, "alive": workers, "booted": workers}
        )
    )


def expect_exits(server: PromgunProcess, **causes: int) -> None:
    """Assert that these ends were counted, and no others."""
    wait_until(
        lambda: server.scrape().by("cause", EXITS) == causes,
        message=lambda: f"{causes}, there are {server.scrape().by('cause', EXITS)}\n{server.log}",
    )
    assert server.fresh().by("cause", EXITS) == causes


@pytest.fixture(scope="module")
def shared_server(worker_type: str) -> Iterator[PromgunProcess]:
    """One worker of each type, without an option that ends it."""
    with Sandbox() as sandbox, probe(worker_type, workers=1, sandbox=sandbox) as server:
        yield server


@pytest.fixture
def server(shared_server: PromgunProcess) -> Counted:
    """The shared server, as if none of its workers had ended before."""
    settled(shared_server, 1)
    return Counted(shared_server)


Hold: TypeAlias = "Callable[..., Connection]"


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Send requests that stay in the application: at a gate until a file of its name is written, stuck for ever."""
    with ExitStack() as connections:

        def send_and_wait(server: PromgunProcess, sandbox: Sandbox, path: str = "/gate/gate") -> Connection:
            connection = connections.enter_context(Connection(server.address))
            connection.socket.sendall(Request(f"{path}?secret=1").encode("1.1", keepalive=False))
            wait_until((sandbox.directory / f"{Path(path).name}.waiting").exists)
            return connection

        yield send_and_wait


def test_each_signal_that_ends_a_worker_has_a_cause_and_last_words(hold: Hold, server: Counted) -> None:
    """Ended by somebody else with SIGTERM, a worker was not reloaded, and finishes what it serves."""
    signals = (
        (signal.SIGKILL, "killed"),
        (signal.SIGSEGV, "segfault"),
        (signal.SIGBUS, "segfault"),
        (signal.SIGUSR2, "other_signal"),
        (NAMELESS, "other_signal"),
    )
    ends: Counter[str] = Counter()
    for number, cause in signals:
        gate = f"/gate/signal-{number:d}"
        hold(server, server.sandbox, gate)
        (worker,) = server.workers()
        server.send_signal(number, worker)
        ends[cause] += 1
        expect_exits(server, **ends)
        settled(server, 1)
        assert server.scrape().by("cause", LOST) == ends
        line = next(line for line in server.log.splitlines() if f"GET {gate} from 127.0.0.1" in line)
        assert f"(pid:{worker}) ended ({cause}) while serving" in line
        assert "application" in line
    lost = dict(ends)
    server.send_signal(signal.SIGTERM, server.workers()[0])
    ends["other_signal"] += 1
    expect_exits(server, **ends)
    settled(server, 1)
    assert server.scrape().by("cause", LOST) == lost


def test_a_worker_that_cannot_say_that_it_ends_is_shown_to_drain() -> None:
    with probe("sync", workers=1) as server:
        (stopped,) = server.workers()
        server.send_signal(signal.SIGSTOP, stopped)
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.scrape().by("state", "gunicorn_worker_state").get("draining") == 1)
        server.send_signal(signal.SIGCONT, stopped)
        expect_exits(server, reload=1)


def test_reload_and_scaling(server: Counted) -> None:
    for count in (2, 3):
        server.send_signal(signal.SIGTTIN)
        settled(server, count)
    server.send_signal(signal.SIGTTOU)
    expect_exits(server, scale_in=1)
    settled(server, 2)
    server.send_signal(signal.SIGHUP)
    expect_exits(server, scale_in=1, reload=2)
    # It is configured for one.
    settled(server, 1)
    page = server.fresh()
    assert page.by("result", "gunicorn_reloads_total") == {"ok": 1}
    assert page.sum("gunicorn_last_reload_timestamp_seconds") > 1e9
    assert not page.by("cause", LOST)


@MASTERS_AFFAIR
def test_a_timeout_is_one_whatever_the_wait_status(worker_type: str) -> None:
    with probe(worker_type, "--timeout", "2", workers=1) as server:
        (worker,) = server.workers()
        server.send_signal(signal.SIGSTOP, worker)
        expect_exits(server, timeout=1)
        assert f"(pid:{worker}) has been silent" in server.log


def test_a_stuck_worker_shows_its_stacks_once_and_what_it_served(hold: Hold, worker_type: str) -> None:
    with Sandbox() as sandbox, probe(worker_type, "--timeout", "3", workers=1, sandbox=sandbox) as server:
        (worker,) = server.workers()
        served = ["/stuck/stuck"] if worker_type == "sync" else ["/gate/one", "/gate/two", "/stuck/stuck"]
        for path in served:
            hold(server, sandbox, path)
        wait_until(lambda: server.log.count("timed out while serving") == len(served), message=lambda: server.log)
        for gate in ("one", "two"):
            # Green workers serve what is left, once the stuck request was cut off.
            sandbox.write(gate, "")
        expect_exits(server, timeout=1)
        settled(server, 1)
        log = server.log
        green = worker_type in {"gevent", "eventlet"}
        trouble, since = ("blocked its event loop", 1) if green else ("been silent", 2.7)
        (silence,) = re.findall(rf"\(pid:{worker}\) has {trouble} for ([\d.]+) s.*: its stacks follow", log)
        assert float(silence) >= since
        # As faulthandler writes it; a traceback would have a comma before "in".
        assert len(re.findall(r'probe\.py", line \d+ in stuck', log)) == 1
        if green:
            assert len(re.findall(r'probe\.py", line \d+, in gate', log)) == 2
        last_words = re.findall(rf"\(pid:{worker}\) timed out while serving: GET (\S+) from 127", log)
        assert sorted(last_words) == served
        assert "ended (timeout) while serving" not in log
        if worker_type == "gthread":
            # No thread ran again before the master's SIGKILL.
            assert server.scrape().by("cause", LOST) == {"timeout": 3}


def test_last_words_do_not_run_out(hold: Hold, server: Counted) -> None:
    """The scoreboard has room for 64 requests at once, however many there were before, served or failed."""
    requests = [
        Request("/ok"),
        Request("/fail/ValueError"),
        Request("/stream/2/10"),
        Request("/echo", "POST", body=b"x"),
    ]
    for count, keepalive in enumerate((True, False), 1):
        answers = load(server.address, requests * 40, concurrency=8, keepalive=keepalive)
        assert answers == {200: 120, 500: 40}
        hold(server, server.sandbox, f"/gate/last-{count}")
        (worker,) = server.workers()
        server.send_signal(signal.SIGKILL, worker)
        expect_exits(server, killed=count)
        assert f"(pid:{worker}) ended (killed) while serving: GET /gate/last-{count} from 127" in server.log
        assert server.scrape().by("cause", LOST) == {"killed": count}
        settled(server, 1)


def test_a_request_that_times_out_is_lost_once(hold: Hold, worker_type: str) -> None:
    with Sandbox() as sandbox, probe(worker_type, "--timeout", "3", workers=1, sandbox=sandbox) as server:
        connection = hold(server, sandbox, "/stuck/stuck")
        # The worker may answer 500 before it goes, and then waits for the client to leave, as a proxy would at once.
        connection.socket.settimeout(20)
        with contextlib.suppress(ConnectionError):
            while connection.socket.recv(1 << 16):
                pass
        connection.close()
        expect_exits(server, timeout=1)
        settled(server, 1)
        page = server.fresh()
        # Some classes answer 500, and whoever was answered is not lost.
        answered = {"500": 1} if worker_type in {"sync", "eventlet"} else {}
        assert page.by("status", "gunicorn_requests_total") == answered
        assert page.by("cause", LOST) == ({} if answered else {"timeout": 1})


@pytest.mark.parametrize("green", ["gevent", "eventlet"])
def test_stacks_that_are_asked_for_at_the_last_moment_are_shown_once(hold: Hold, green: str) -> None:
    """As happens with a short timeout: Gunicorn's loop looks once a second."""
    with (
        Sandbox() as sandbox,
        probe(green, "--timeout", "2", "--stack-dump-at", "1", workers=1, sandbox=sandbox) as server,
    ):
        hold(server, sandbox, "/gate/one")
        hold(server, sandbox, "/stuck/stuck")
        wait_until(lambda: "WORKER TIMEOUT" in server.log)
        sandbox.write("one", "")
        expect_exits(server, timeout=1)
        assert len(re.findall(r'probe\.py", line \d+ in stuck', server.log)) == 1
        assert len(re.findall(r'probe\.py", line \d+, in gate', server.log)) == 1


def test_stack_dumps_can_be_turned_off(hold: Hold) -> None:
    with Sandbox() as sandbox, probe("sync", "--timeout", "2", "--stack-dump-at", "0", sandbox=sandbox) as server:
        hold(server, sandbox)
        expect_exits(server, timeout=1)
        assert "stacks follow" not in server.log


def test_a_worker_that_the_application_ends(server: Counted) -> None:
    """Also with the statuses that Gunicorn takes for a worker that cannot boot."""
    for count, status in enumerate((7, 3, 4), 1):
        with pytest.raises(ConnectionError):
            send(server.address, "GET", f"/leave/{status}")
        expect_exits(server, app_exit=count)
        settled(server, 1)
        assert server.scrape().by("cause", LOST) == {"app_exit": count}
        assert f"exited with code {status}." in server.log
    assert send(server.address, path="/ok").status == 200
    server.expect("gunicorn_requests_total", 1)
    server.expect("gunicorn_worker_requests_in_progress", 0)


def test_shutdown_and_a_worker_that_does_not_finish_in_time(hold: Hold, worker_type: str) -> None:
    with Sandbox() as sandbox:
        store = sandbox.directory / "store"
        options = ("--graceful-timeout", "3", "--metrics-dir", str(store))
        with probe(worker_type, *options, sandbox=sandbox) as server:
            hold(server, sandbox)
            assert server.stop() == 0
        assert "Perhaps out of memory" not in server.log
        if worker_type in {"sync", "gthread"}:
            assert re.search(r"\[WARNING\] .* still serving after --graceful-timeout: GET /gate", server.log), (
                server.log
            )
        ends = server.dump("--dir", str(store)).by("cause", EXITS)
    assert ends == {"shutdown": 1, "graceful_timeout": 1}


def test_a_server_that_quits_at_once_names_no_timeout(hold: Hold, worker_type: str) -> None:
    with Sandbox() as sandbox, probe(worker_type, "--graceful-timeout", "60", sandbox=sandbox) as server:
        hold(server, sandbox)
        assert server.stop(signal.SIGINT) == 0
        assert "--graceful-timeout" not in server.log, server.log


NO_MODULE = ("import a_module_that_nobody_has\ndef app(e, s): ...\n", "", 4, "app_load_error")
RAISES = ("def app(e, s): ...\nraise ValueError('no database')\n", "", 4, "app_load_error")
HOOK = ("def app(e, s): ...\n", "def post_worker_init(worker):\n    raise ValueError('no')\n", 3, "boot_error")
#: Gunicorn's own server serves all the same before 27.0.1.
ENDED_BY_LIFESPAN = ("asgi", "uvicorn") if gunicorn.version_info >= (27, 0, 1) else ("uvicorn",)
LIFESPAN = (
    """
from contextlib import asynccontextmanager
from starlette.applications import Starlette
@asynccontextmanager
async def lifespan(app):
    raise ValueError("no database")
    yield
app = Starlette(lifespan=lifespan)
""",
    "",
    3,
    "boot_error",
)


@pytest.mark.parametrize(
    ("worker_type", "source", "config", "code", "cause"),
    [
        *((worker_type, *LIFESPAN) for worker_type in ENDED_BY_LIFESPAN),
        ("sync", *NO_MODULE),
        ("sync", *RAISES),
        ("sync", *HOOK),
        ("gthread", *HOOK),
        ("gevent", *RAISES),
        ("eventlet", *HOOK),
    ],
)
def test_a_worker_that_cannot_boot_ends_the_server(
    sandbox: Sandbox, worker_type: str, source: str, config: str, code: int, cause: str
) -> None:
    sandbox.write("cannot.py", source)
    store = sandbox.directory / "store"
    options = ("--metrics-dir", str(store))
    server = probe(worker_type, *options, app="cannot:app", config=config, workers=1, sandbox=sandbox)
    server.start()
    assert server.wait() == code, server.log
    page = server.dump("--dir", str(store))
    assert page.by("cause", EXITS) == {cause: 1}
    assert page.sum("gunicorn_worker_spawns_total") == 1
    if (source, config, code, cause) == LIFESPAN:
        assert "[ERROR] The application's lifespan start-up failed: ValueError: no database\n" in server.log


@MASTERS_AFFAIR
def test_a_worker_that_dies_while_it_boots_is_replaced(sandbox: Sandbox, worker_type: str) -> None:
    store = sandbox.directory / "store"
    sandbox.write("dies.py", "import os\nos._exit(9)\ndef app(e, s): ...\n")
    server = probe(worker_type, "--metrics-dir", str(store), app="dies:app", workers=1, sandbox=sandbox)
    server.start()
    wait_until(store.exists)
    wait_until(lambda: cause_in(server, store, "boot_error") >= 2)
    assert server.stop() == 0, server.log
    page = server.dump("--dir", str(store))
    ends = page.by("cause", EXITS)
    assert ends.keys() <= {"boot_error", "shutdown"}
    assert sum(ends.values()) == page.sum("gunicorn_worker_spawns_total")


def cause_in(server: PromgunProcess, store: Path, cause: str) -> float:
    """Return how often a store holds a cause."""
    return server.dump("--dir", str(store)).sum(EXITS, cause=cause)


@MASTERS_AFFAIR
def test_an_oom_kill_is_told_by_the_control_group(worker_type: str, sandbox: Sandbox) -> None:
    group = sandbox.directory / "cgroup"
    group.mkdir()
    events = group / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 3\noom 0\noom_kill 4\n")
    with probe(worker_type, "--cgroup-dir", str(group), sandbox=sandbox) as server:
        events.write_text("low 0\nhigh 0\nmax 9\noom 1\noom_kill 5\n")
        server.send_signal(signal.SIGKILL, server.workers()[0])
        expect_exits(server, oom=1)
        settled(server)
        server.send_signal(signal.SIGKILL, server.workers()[0])
        expect_exits(server, oom=1, killed=1)


def booted_without(server: PromgunProcess, killed: frozenset[int], count: int) -> set[int]:
    """Return so many booted workers that were not killed: the page from the cache may still show those that were."""
    living = wait_until(lambda: alive if len(alive := set(server.workers()) - killed) == count else None)
    server.fresh()
    settled(server, count)
    return living


def test_a_storm_of_deaths_is_counted_without_a_miss() -> None:
    with probe("sync", workers=4) as server:
        killed: set[int] = set()
        for _ in range(8):
            living = booted_without(server, frozenset(killed), 4)
            for worker in living:
                server.send_signal(signal.SIGKILL, worker)
            killed |= living
        expect_exits(server, killed=len(killed))


def test_orphans_count_themselves(worker_type: str) -> None:
    with Sandbox(clean=False) as sandbox:
        store = sandbox.directory / "store"
        server = probe(worker_type, "--metrics-dir", str(store), "--timeout", "4", sandbox=sandbox)
        server.start()
        wait_until(lambda: "Metrics at" in server.log and server.scrape().sum("gunicorn_workers", state="booted") == 2)
        workers = server.workers()
        server.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(is_running(pid) for pid in workers))
        assert server.wait() == -signal.SIGKILL
        assert server.dump("--dir", str(store)).sum(EXITS, cause="parent_lost") == 2


def is_running(pid: int) -> bool:
    """Whether a process runs."""
    return Path(f"/proc/{pid}").exists()
