"""The traps of the store, on a real server of root's whose workers run as another user."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.process.test_endpoint_push import answer, gateway
from tests.support.harness import GUNICORN, PromgunProcess, Sandbox, is_alive, wait_until
from tests.support.http_client import load, send
from tests.support.page import Page
from tests.support.root_server import LOADED_BY_ROOT, REQUESTS, RootServer, nobody
from tests.support.runs import ended, key

pytestmark = pytest.mark.needs_root("run a master that changes the user of its workers")

ERRORS = "promgun_store_errors_total"


# ---- umask


def umasked(*command: str) -> tuple[str, ...]:
    """Return a command that begins with a umask under which nobody else may do anything."""
    program = "import os, sys; os.umask(0o77); os.execv(sys.executable, [sys.executable, '-m', *sys.argv[1:]])"
    return ("-c", program, *command)


@pytest.mark.parametrize("launcher", ["promgun", "gunicorn"])
def test_a_umask_that_lets_nobody_else_read(sandbox: Sandbox, launcher: str) -> None:
    ours = launcher == "promgun"
    command = umasked("promgun", "run") if ours else umasked("gunicorn", "-k", "promgun.PrometheusWorker")
    with PromgunProcess(
        "--user",
        "nobody",
        "--group",
        "nogroup",
        "--preload",
        command=command,
        app="counting:app",
        metrics="127.0.0.1:0" if ours else None,
        workers=2,
        sandbox=sandbox,
    ) as server:
        assert load(server.address, 20, path="/book") == {200: 20}
        if ours:
            server.expect("shop_orders_total", 20)
        wait_until(lambda: server.dump().sum("shop_orders_total") == 20)
        page = server.dump()
        assert page.sum(REQUESTS) == 20
        assert page.value("gunicorn_up") == 1
        assert page.sum(ERRORS) == 0


# ---- what root opens

#: Notes every opening below the workers' directories by a process with root's rights. Their names are numbers, or
#: end in .db; audit events do not say which directory a name is looked up in.
AUDIT = r"""
import os, re, sys

LOG = os.environ.get("AUDIT_LOG")
KIND = r"lock|counter|gauge|histogram|summary"
THEIRS = re.compile(rf"(.*/)?(slots|client|multiproc)(/.*)?|(.*/)?\d+(\.({KIND}).*)?|.*\.db")
SLOT, LOCK = re.compile(r"\d+"), re.compile(r"\d+\.lock")
NOFOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def allowed(name, flags):
    if name in ("slots", "client", "multiproc"):
        return flags & os.O_DIRECTORY and flags & os.O_NOFOLLOW and not flags & WRITES
    if LOCK.fullmatch(name) and flags & os.O_CREAT:
        return flags & os.O_EXCL and flags & os.O_NOFOLLOW
    if LOCK.fullmatch(name) or SLOT.fullmatch(name):
        return flags & os.O_NOFOLLOW and flags & os.O_NONBLOCK and not flags & WRITES
    return False


def watch(event, arguments):
    if event not in WATCHED or os.geteuid() != 0:
        return
    name = arguments[0]
    if not isinstance(name, (str, bytes)):
        return
    name = os.fsdecode(name)
    if name.startswith(("/proc/", "/dev/fd", sys.prefix, sys.base_prefix)) or not THEIRS.fullmatch(name):
        return
    if event == "open" and allowed(name, arguments[2]):
        kind = "allowed"
    elif event == "os.mkdir" and name in ("slots", "client", "multiproc"):
        kind = "allowed"
    else:
        kind = "VIOLATION"
    line = f"{kind} {os.getpid()} {event} {name} {arguments[1:]!r}\n"
    fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, line.encode())
    os.close(fd)


WATCHED = {"open", "os.truncate", "os.chown", "os.chmod", "os.link", "os.symlink", "os.rename", "os.mkdir", "os.utime",
           "os.setxattr", "shutil.rmtree", "shutil.chown", "sqlite3.connect"}
if LOG:
    sys.addaudithook(watch)
"""


def test_root_opens_nothing_of_the_workers(sandbox: Sandbox) -> None:
    """But lock files, through no link, and a slot's board for reading; not even when the page is pushed at the end."""
    sandbox.write("sitecustomize.py", AUDIT)
    log = sandbox.directory / "audit.log"
    with gateway(answer(200)) as gate:
        args = ("--max-requests", "15", "--push-gateway", f"http://{gate.url}")
        with RootServer(*args, app="counting:app", sandbox=sandbox, env={"AUDIT_LOG": str(log)}, workers=2) as server:
            child = ended(server.run_directory / "client" / "multiproc", "counter", 4194999, {key(n="a"): 3.0})
            os.chown(child, nobody().pw_uid, -1)
            server.expect("jobs_total", 3)
            sent = serve_and_upgrade(server)
            assert server.run_directory.stat().st_uid == 0
        assert len(gate.seen) == 1, server.log
        ((_, _, pushed),) = gate.seen
    page = Page(pushed)
    assert (page.sum(REQUESTS), page.sum("shop_orders_total")) == (sent, sent)
    assert page.sum("jobs_total") == 3, "of a child that never heard of promgun"
    lines = log.read_text().splitlines()
    assert [line for line in lines if line.startswith("VIOLATION")] == []
    seen = {re.sub(r"\d+", "N", line.split()[3]) for line in lines}
    assert {"N.lock", "N", "slots"} <= seen, "the hook sees what is allowed"


def requests_left(server: RootServer) -> list[float]:
    """Return how many requests each living worker has left."""
    return list(server.scrape().by("worker_id", "gunicorn_worker_requests_left").values())


def serve_and_upgrade(server: RootServer) -> int:
    """Have workers recycled, killed and reloaded, and a new master; return how many requests were answered."""
    sent = server.serve(40, "/book")
    server.expect(REQUESTS, sent)
    # One that has served its last request ends for that, whatever comes meanwhile.
    wait_until(lambda: all(left := requests_left(server)) and len(left) == len(server.workers()) == 2)
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_until(lambda: server.scrape().sum("gunicorn_worker_exits_total", cause="killed") == 1)
    wait_until(lambda: len(server.obedient()) == 2)
    before = server.workers()
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: not any(map(is_alive, before)))
    wait_until(lambda: len(server.obedient()) == 2)
    old = server.process.pid
    server.send_signal(signal.SIGUSR2)
    wait_until(lambda: len(server.listening()) == 2 and len(server.obedient()) == 2)
    os.kill(old, signal.SIGQUIT)
    wait_until(lambda: not is_alive(old))
    sent += server.serve(10, "/book")
    server.expect(REQUESTS, sent)
    return sent


# ---- what a fork inherits

SCRIBBLING = """
import ctypes, json, os

INHERITED = {}


def scribble():
    run = os.path.dirname(os.path.dirname(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    # A process that changed its user may not look at itself, until it says so (PR_SET_DUMPABLE).
    ctypes.CDLL(None).prctl(4, 1)
    done = {"descriptors": [], "mappings": [], "opened": []}
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + number)
        except OSError:
            continue
        if target.startswith(run):
            done["descriptors"].append(target)
            try:
                os.pwrite(int(number), b"\\xff" * 65536, 0)
            except OSError:
                pass
    for line in open("/proc/self/maps").read().splitlines():
        where, mode, *_, path = line.split()
        if path.startswith(run) and "w" in mode:
            begin, end = (int(part, 16) for part in where.split("-"))
            done["mappings"].append(path)
            ctypes.memset(begin, 0xFF, min(end - begin, 8192))
    for name in ("version", "master/m0", "master/m0.json", "master/m0.workers", "master/m0.counter"):
        try:
            os.close(os.open(os.path.join(run, name), os.O_RDWR))
            done["opened"].append(name)
        except OSError:
            pass
    return done


def app(environ, start_response):
    body = b"ok"
    if environ["PATH_INFO"] == "/scribble":
        pid = os.fork()
        if not pid:
            try:
                done = scribble()
                with open(environ["QUERY_STRING"], "w") as answer:
                    json.dump(done, answer)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_a_fork_that_scribbles_over_all_it_inherited(sandbox: Sandbox) -> None:
    sandbox.write("scribbling.py", SCRIBBLING)
    drop = sandbox._subdirectory("drop", 0o777)
    with RootServer("--preload", app="scribbling:app", sandbox=sandbox) as server:
        server.expect(REQUESTS, server.serve(10, "/"))
        master = server.run_directory / "master"
        inodes = {path.name: path.stat().st_ino for path in master.iterdir()}
        before = server.scrape()
        with load_in_background(server, f"/scribble?{drop / 'answer'}"):
            wait_until(lambda: (drop / "answer").exists() and (drop / "answer").read_text())
        done = json.loads((drop / "answer").read_text())
        assert done["opened"] == []
        assert not [path for path in done["descriptors"] + done["mappings"] if "/master/" in path]
        page = server.fresh()
        assert server.process.poll() is None
        assert page.value("gunicorn_up") == 1
        for name in ("gunicorn_worker_spawns_total", "gunicorn_reloads_total"):
            assert page.sum(name) >= before.sum(name)
        assert {name: (master / name).stat().st_ino for name in inodes} == inodes
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.scrape().sum("gunicorn_reloads_total", result="ok") == 1)
        wait_until(lambda: send(server.address, path="/").status == 200)
    assert "Traceback" not in server.log


class load_in_background:  # noqa: N801 - reads as a function
    """Send one request whose answer does not matter."""

    def __init__(self, server: PromgunProcess, path: str) -> None:
        from threading import Thread  # noqa: PLC0415 - for this alone

        def ask() -> None:
            with contextlib.suppress(OSError):
                send(server.address, path=path)

        self._thread = Thread(target=ask, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)


# ---- reload


@pytest.mark.parametrize(
    ("changed", "option"),
    [
        ("user = 'daemon'", "--user"),
        ("group = 'daemon'", "--group"),
        ("metrics_dir = '/run/elsewhere'", "--metrics-dir"),
    ],
)
def test_a_reload_cannot_change_whose_the_store_is(sandbox: Sandbox, changed: str, option: str) -> None:
    config = f"{LOADED_BY_ROOT}user = 'nobody'\ngroup = 'nogroup'\n"
    with PromgunProcess(app="probe:app", sandbox=sandbox, config=config, workers=1) as server:
        assert send(server.address, path="/ok").status == 200
        workers = server.workers()
        sandbox.write("gunicorn.conf.py", config + changed)
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.scrape().sum("gunicorn_reloads_total", result="failed") == 1)
        assert f"{option} needs a restart" in server.log
        if option == "--group":
            # Nor can an upgrade, whose new master ends at once (tests of attach have both options).
            server.send_signal(signal.SIGUSR2)
            wait_until(lambda: "An upgrade by SIGUSR2 cannot change --group" in server.log)
            wait_until(lambda: len(psutil.Process(server.process.pid).children()) == len(workers) + 1)
        assert server.workers() == workers
        sandbox.write("gunicorn.conf.py", config + "threads = 1\n")
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.scrape().sum("gunicorn_reloads_total", result="ok") == 1)
        server.expect(REQUESTS, 1)


# ---- two formats

#: A master that another one has executed is of a version whose store has another format.
ANOTHER_FORMAT = """
import os

if "GUNICORN_PID" in os.environ:
    import promgun.store.run_directory

    promgun.store.run_directory.FORMAT = "promgun store 99\\n"
"""


@pytest.mark.parametrize("named", [False, True], ids=["private", "named"])
def test_another_format_by_upgrade_and_back(sandbox: Sandbox, *, named: bool) -> None:
    """Only one of the two shows its counters at a time; after a rollback the old ones are there again."""
    sandbox.write("sitecustomize.py", ANOTHER_FORMAT)
    args = ("--metrics-dir", str(sandbox.directory / "named")) if named else ()
    with RootServer(*args, sandbox=sandbox, workers=1) as server:
        old = server.process.pid
        server.expect(REQUESTS, server.serve(10))
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: len(server.listening()) == 2 and server.master_pid != old and server.workers())
        assert "counters begin anew" in server.log
        # From the moment when the new one is seen, the old one is not.
        wait_until(lambda: server.scrape().sum(REQUESTS) < 10)
        assert server.metrics_pid(old) is None
        assert all(server.scrape().sum(REQUESTS) < 10 for _ in range(20))
        os.kill(server.master_pid, signal.SIGTERM)
        wait_until(lambda: server.metrics_pid(old) is not None)
        wait_until(lambda: server.scrape().sum(REQUESTS) >= 10)


# ---- --preload, and stock readers

STOCK = """
import counting
from prometheus_client import CollectorRegistry, generate_latest, multiprocess


def app(environ, start_response):
    if environ["PATH_INFO"] == "/stock":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    return counting.app(environ, start_response)


counting.ORDERS.labels(kind="preloaded").inc(5)
"""


@pytest.mark.parametrize("group", ["nogroup", ""])
@pytest.mark.parametrize("launcher", ["promgun", "gunicorn"])
def test_preload_and_a_stock_collector_in_a_worker(sandbox: Sandbox, launcher: str, group: str) -> None:
    sandbox.write("stocked.py", STOCK)
    ours = launcher == "promgun"
    command = ("-m", "promgun", "run") if ours else (*GUNICORN, "-k", "promgun.PrometheusWorker")
    with PromgunProcess(
        "--preload",
        "--user",
        "nobody",
        *(("--group", group) if group else ()),
        command=command,
        app="stocked:app",
        metrics="127.0.0.1:0" if ours else None,
        workers=2,
        sandbox=sandbox,
    ) as server:
        assert load(server.address, 20, path="/book") == {200: 20}
        wait_until(
            lambda: server.dump().by("kind", "shop_orders_total") == {"book": 20, "preloaded": 5},
            message=lambda: server.dump().text,
        )
        page = server.dump()
        assert page.value("gunicorn_up") == 1
        assert page.sum(REQUESTS) == 20
        stock = wait_until(lambda: stock_page(server))
        assert not [name for name in stock.families if name.startswith(("gunicorn_", "promgun_"))]
        for name in ("shop_orders_total", "shop_basket_euros_count", "shop_payment_seconds_sum", "shop_peak"):
            assert stock.sum(name) == page.sum(name)


def stock_page(server: PromgunProcess) -> Page | None:
    """Return what a stock collector in a worker shows, once it shows what the master had."""
    page = Page(send(server.address, path="/stock").text)
    return page if page.by("kind", "shop_orders_total") == {"book": 20, "preloaded": 5} else None


# ---- the books of the dead


def test_busy_seconds_stand_still_after_the_end(sandbox: Sandbox) -> None:
    """A worker that is killed in the middle of a request has used no more time since."""
    busy = "gunicorn_worker_busy_seconds_total"
    with RootServer("--graceful-timeout", "1", "--timeout", "300", sandbox=sandbox, workers=2) as server:
        background = [load_in_background(server, "/sleep/120") for _ in range(2)]
        for each in background:
            each.__enter__()
        wait_until(lambda: server.scrape().sum("gunicorn_worker_requests_in_progress") == 2)
        # Gunicorn ends the oldest.
        victim = int(re.findall(r"Booting worker with pid: (\d+)", server.log)[0])
        server.send_signal(signal.SIGTTOU)
        wait_until(lambda: server.scrape().sum("gunicorn_worker_state", state="draining") == 1)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: server.scrape().sum("gunicorn_worker_exits_total") == 1)
        page = server.fresh()
        ended = page.by("worker_id", busy)
        end = time.monotonic() + 2
        wait_until(lambda: time.monotonic() > end)
        later = server.fresh(page).by("worker_id", busy)
        assert ended.keys() == later.keys()
        standing = [worker for worker in ended if later[worker] == ended[worker]]
        assert len(standing) == 1, (victim, ended, later)
        assert len(ended) == 2
        assert server.stop(signal.SIGQUIT) == 0


# ---- descriptors


def descriptors(pid: int) -> int:
    """Return how many descriptors a process holds: the least of several looks, for others are open for a moment."""
    looks = []
    for _ in range(20):
        looks.append(len(os.listdir(f"/proc/{pid}/fd")))
        time.sleep(0.01)
    return min(looks)


def counted(command: tuple[str, ...], metrics: str | None, workers: int) -> tuple[int, int]:
    """Return the descriptors of a master and the most of its workers, after workers came and went."""
    with PromgunProcess(command=command, app="probe:app", metrics=metrics, workers=workers) as server:
        assert load(server.address, 20, path="/ok") == {200: 20}
        for _ in range(5):
            before = server.obedient()
            os.kill(before[0], signal.SIGKILL)
            wait_until(lambda victim=before[0]: not is_alive(victim) and len(server.obedient()) == workers)  # type: ignore[misc] # bound now
        assert load(server.address, 20, path="/ok") == {200: 20}
        return descriptors(server.master_pid), max(map(descriptors, server.workers()))


def test_descriptors_are_few_and_do_not_grow() -> None:
    ours = ("-m", "promgun", "run")
    plain_few, plain_worker = counted(GUNICORN, None, 1)
    plain_many, _ = counted(GUNICORN, None, 4)
    few, worker = counted(ours, "127.0.0.1:0", 1)
    many, _ = counted(ours, "127.0.0.1:0", 4)
    assert many - few <= plain_many - plain_few + 3, "one more a worker: the lock of its slot"
    # Its own: the run's directory, its values, its table of workers, the endpoint's listener.
    assert few - plain_few <= 1 + 4
    assert worker <= plain_worker + 2


# ---- limits


class ServesWithoutNumbers(PromgunProcess):
    """A server that is ready when it serves, whatever its page can show."""

    def _is_ready(self) -> bool:
        return bool(self.listening()) and len(self.obedient()) >= self._workers and "Metrics at" in self.log


def test_a_limit_on_the_size_of_files(sandbox: Sandbox) -> None:
    """Under RLIMIT_FSIZE writing beyond it is an error (Python ignores SIGXFSZ): it is said once, and all is served."""
    program = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18)); "
        "os.execv(sys.executable, [sys.executable, '-m', 'promgun', 'run', *sys.argv[1:]])"
    )
    with ServesWithoutNumbers(command=("-c", program), app="counting:app", sandbox=sandbox, workers=1) as server:
        assert load(server.address, 30, path="/book") == {200: 30}
        page = wait_until(server.scrape)
        assert page.value("gunicorn_up") == 1
        worker = server.workers()
        assert load(server.address, 30, path="/book") == {200: 30}
        assert server.workers() == worker
        assert server.log.count("Metrics cannot be stored") <= 2
        assert "Traceback" not in server.log


def test_a_file_system_of_two_megabytes(sandbox: Sandbox) -> None:
    named = sandbox._subdirectory("small", 0o700)
    program = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.unshare(0x20000)
libc.mount(b"none", b"/", None, 0x4000 | 1 << 18, None)
if libc.mount(b"tmpfs", sys.argv[1].encode(), b"tmpfs", 0, b"size=2m,mode=700"):
    raise OSError(ctypes.get_errno(), "mount")
os.execv(sys.executable, [sys.executable, "-m", "promgun", "run", "--metrics-dir", *sys.argv[1:]])
"""
    given = ("--user", "nobody", "--group", "nogroup", "-k", "gthread", "--threads", "4")
    with PromgunProcess(
        *given,
        command=("-c", program, str(named)),
        app=None,
        sandbox=sandbox,
        workers=4,
        config=LOADED_BY_ROOT + "wsgi_app = 'counting:app'",
    ) as server:
        assert load(server.address, 400, path="/book", concurrency=8) == {200: 400}
        server.expect("shop_orders_total", 400)
        server.expect(REQUESTS, 400)
        page = server.fresh()
        assert page.sum(ERRORS) == 0
        inside = Path(f"/proc/{server.process.pid}/root{named}")
        status = os.statvfs(inside)
        assert status.f_bavail * status.f_frsize > 1 << 20, "four workers and a master take less than half of it"
        assert (inside / ".promgun" / "slots").stat().st_uid == nobody().pw_uid
