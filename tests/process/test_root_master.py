"""What a compromised worker, and a neighbour on the host, can do to a master that runs as root: nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.system.folders import SHARED_MEMORY
from tests.support.harness import PromgunProcess, Sandbox, is_alive, wait_until
from tests.support.http_client import send
from tests.support.root_server import REQUESTS, Precious, RootServer, as_workers, nobody, running_as

pytestmark = pytest.mark.needs_root("run a master that changes the user of its workers")

#: Puts links to ``argv[1]`` wherever a process of root's may open or write something below ``argv[2]``.
PLANT_LINKS = """
import os, sys
precious, run = sys.argv[1:]
denied = 0
for folder, names in {
    "": ["version", ".new-version", "1.lock", "m0"],
    "master": ["m0", "m1", "m0.json", "m1.json", ".new-m0.json", "m0.workers", "m1.workers", "m0.counter"],
    "slots": [f"{number}{end}" for number in range(1, 9) for end in ("", ".lock", ".counter", ".gauge_livesum")],
    "client": ["multiproc", "anything"],
    "client/multiproc": ["counter_slot1.db", "counter_m0.db", "counter_1.db", "counter_slot7.db"],
}.items():
    for name in names:
        path = os.path.join(run, folder, name)
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                os.rename(path, path + "-away")
            elif os.path.lexists(path):
                os.unlink(path)
            os.symlink(precious, path)
        except PermissionError:
            denied += 1
        except NotADirectoryError:
            pass
print(denied)
"""


def replaced(server: PromgunProcess, pid: int) -> bool:
    """Tell whether a worker is gone and there are as many as before."""
    return not is_alive(pid) and len(server.workers()) == 2 and pid not in server.workers()


def test_links_at_every_name_that_root_opens(sandbox: Sandbox) -> None:
    sandbox.clean = False
    precious = Precious(sandbox.directory / "precious")
    with RootServer("--graceful-timeout", "3", app="counting:app", sandbox=sandbox) as server:
        server.serve(10)
        run = server.run_directory
        denied = as_workers(PLANT_LINKS, precious.path, run)
        assert int(denied) == 12, "what masters write lies where workers cannot write"
        assert (run / "slots" / "3.lock").is_symlink()
        assert (run / "client" / "multiproc").is_symlink()
        for action in (signal.SIGKILL, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            before = server.workers()
            if action is signal.SIGKILL:
                os.kill(before[0], action)
                wait_until(lambda victim=before[0]: replaced(server, victim))  # type: ignore[misc] # bound now
            else:
                server.send_signal(action)
                wait_until(lambda before=before: set(server.workers()) != set(before))  # type: ignore[misc] # same
            wait_until(lambda: send(server.address, path="/ok").status == 200)
            precious.assert_untouched()
        old = server.process.pid
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: len(server.listening()) == 2 and server.workers())
        os.kill(old, signal.SIGQUIT)
        wait_until(lambda: not is_alive(old))
        wait_until(lambda: send(server.address, path="/ok").status == 200)
    precious.assert_untouched()
    assert "Traceback" not in server.log


def test_a_directory_of_the_workers_cannot_lead_root_elsewhere(sandbox: Sandbox) -> None:
    """``--metrics-dir`` may be the workers' own: then they can put another directory in the place of the run's."""
    sandbox.clean = False
    named = sandbox.directory / "named"
    named.mkdir(mode=0o700)
    os.chown(named, nobody().pw_uid, nobody().pw_gid)
    elsewhere = sandbox.directory / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    precious = Precious(sandbox.directory / "precious", 0o644)
    with RootServer("--metrics-dir", str(named), sandbox=sandbox) as server:
        sent = server.serve(10)
        server.expect(REQUESTS, sent)
        code = """
import os, sys
named, elsewhere, precious, master = sys.argv[1:]
os.rename(named + "/.promgun", named + "/away")
os.mkdir(named + "/.promgun")
os.symlink(elsewhere, named + "/.promgun/master")
os.mkdir(named + "/.promgun/slots")
for name in ("1.lock", "2.lock", "1", "2"):
    os.symlink(precious, named + "/.promgun/slots/" + name)
"""
        as_workers(code, named, elsewhere, precious.path, server.master_pid)
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: replaced(server, victim))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.log.count("Booting worker") == 5)
        wait_until(lambda: send(server.address, path="/ok").status == 200)
    precious.assert_untouched()
    assert list(elsewhere.iterdir()) == []
    assert elsewhere.stat().st_uid == 0
    assert "Traceback" not in server.log
    # What they put there is no store of root's.
    again = RootServer("--metrics-dir", str(named), sandbox=sandbox)
    again.start()
    assert again.wait() == 6
    assert "belongs to another user" in again.log
    assert "Traceback" not in again.log


def test_a_metrics_dir_that_is_a_link_is_refused(sandbox: Sandbox) -> None:
    target = sandbox.directory / "target"
    target.mkdir(mode=0o755)
    precious = Precious(target / "counter_1.db")
    link = sandbox.directory / "link"
    link.symlink_to(target)
    server = RootServer("--metrics-dir", str(link), sandbox=sandbox)
    server.start()
    assert server.wait() == 6
    assert "it is a link" in server.log
    assert "Traceback" not in server.log
    precious.assert_untouched()
    assert target.stat().st_uid == 0
    assert [path.name for path in target.iterdir()] == ["counter_1.db"]


def test_a_metrics_dir_below_a_folder_of_others_is_refused(sandbox: Sandbox) -> None:
    folder = sandbox.directory / "theirs"
    folder.mkdir(mode=0o755)
    os.chown(folder, nobody().pw_uid, -1)
    server = RootServer("--metrics-dir", str(folder / "store"), sandbox=sandbox)
    server.start()
    assert server.wait() == 6
    assert "root is the master" in server.log
    assert list(folder.iterdir()) == []


DAMAGE = {
    "truncated": "open(path, 'r+b').truncate(0)",
    "grown": "open(path, 'r+b').truncate(1 << 30)",
    "garbage": "open(path, 'r+b').write(bytes((i * 89 + 31) % 256 for i in range(20000)))",
    "replaced": "open(path + '-', 'wb').write(b'x' * 100); os.rename(path + '-', path)",
    "removed": "os.unlink(path)",
    "folder": "os.unlink(path); os.mkdir(path)",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_no_file_of_a_worker_ends_the_master_or_another_worker(sandbox: Sandbox, damage: str) -> None:
    sandbox.clean = False
    with RootServer(app="counting:app", sandbox=sandbox) as server:
        sent = server.serve(20)
        server.expect(REQUESTS, sent)
        slots = server.run_directory / "slots"
        # Which of the two accepts a connection is chance.
        wait_until(lambda: server.serve(5) and (slots / "1.counter").exists())
        owner = {pid: slot_of(slots, pid) for pid in server.workers()}
        (other,) = [pid for pid, slot in owner.items() if slot == 2]
        code = "import os, sys\nfor path in sys.argv[1:]:\n    " + DAMAGE[damage]
        ours = [path for path in sorted(slots.iterdir()) if path.name.partition(".")[0] == "1"]
        assert {"1", "1.lock", "1.counter"} <= {path.name for path in ours}
        as_workers(code, *ours)
        # A worker whose own file was cut under it may end; it is replaced, and everybody else goes on.
        wait_until(lambda: server.scrape().sum(REQUESTS) > 0)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                send(server.address, path="/ok")
        wait_until(lambda: len(server.workers()) == 2)
        wait_until(lambda: send(server.address, path="/ok").status == 200)
        assert other in server.workers()
        assert server.process.poll() is None
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: not is_alive(other))
        wait_until(
            lambda: server.scrape().value("gunicorn_workers", state="booted") == 2,
            message=lambda: f"two booted: {server.scrape().text}",
        )
        assert send(server.address, path="/ok").status == 200
    assert "Traceback" not in server.log


def slot_of(slots: Path, pid: int) -> int:
    """Return the number of the slot that a process has mapped."""
    mapped = [line.split()[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if str(slots) in line]
    (number,) = {int(Path(path).name.partition(".")[0]) for path in mapped}
    return number


def test_the_control_socket_lies_where_workers_cannot_write(sandbox: Sandbox) -> None:
    with RootServer(sandbox=sandbox) as server:
        sockets = list((server.run_directory / "master").glob("*.ctl"))
        for path in sockets:
            assert path.stat().st_uid == 0
            assert path.stat().st_mode & 0o777 == 0o600
            code = """
import os, sys
for change in (lambda: os.unlink(sys.argv[1]), lambda: os.rename(sys.argv[1], sys.argv[1] + "-")):
    try:
        change()
    except PermissionError:
        print("denied")
"""
            assert as_workers(code, path).split() == ["denied", "denied"]


NEST = """
import os, sys
for top in sys.argv[1:]:
    os.chdir(top)
    for _ in range(1100):
        os.mkdir("nest")
        os.chdir("nest")
"""


def test_folders_nested_without_end(sandbox: Sandbox) -> None:
    named = sandbox.directory / "named"
    arguments = ((), ("--metrics-dir", str(named)), ("--metrics-dir", str(named)))
    for args in arguments:
        with RootServer(*args, sandbox=sandbox) as server:
            server.expect(REQUESTS, server.serve(4))
            run = server.run_directory
            places = [run / "slots", run / "client", run / "client" / "multiproc", *([named] if args else [])]
            as_workers(NEST, *(place for place in places if not (place / "nest").exists()))
            assert server.stop() == 0
        assert "Traceback" not in server.log
        assert "RecursionError" not in server.log
        if not args:
            assert not run.exists()
    subprocess.run(["rm", "-rf", named], check=True)


# ---- groups


SET_GROUPS = (
    "-c",
    "import os, sys; os.setgroups([0, 4]); os.execv(sys.executable, [sys.executable, '-m', *sys.argv[1:]])",
)
KEPT = "Workers keep supplementary groups of root"


@pytest.mark.parametrize("launcher", ["promgun", "gunicorn"])
def test_groups_of_root_that_workers_keep_are_warned_of_once(sandbox: Sandbox, launcher: str) -> None:
    given = {"promgun": ("promgun", "run"), "gunicorn": ("gunicorn", "-k", "promgun.PrometheusWorker")}[launcher]
    for more, times in (((), 1), (("--initgroups",), 0)):
        with PromgunProcess(
            "--user",
            "nobody",
            "--group",
            "nogroup",
            *more,
            command=(*SET_GROUPS, *given),
            app="probe:app",
            metrics="127.0.0.1:0" if launcher == "promgun" else None,
            workers=2,
            sandbox=sandbox,
        ) as server:
            assert send(server.address, path="/ok").status == 200
            assert server.log.count(KEPT) == times
            if times:
                assert f"{KEPT} (0, 4)" in server.log


# ---- a neighbour


PLANT_STORES = """
import os, sys
prefix, *places = sys.argv[1:]
for place in places:
    os.chdir(place)
    os.mkfifo(prefix + "fifo")
    os.symlink("/etc", prefix + "link")
    os.mkdir(prefix + "deep")
    os.mkdir(prefix + "fifos")
    for name in ("version", "slots", "store.lock", "master"):
        os.mkfifo(prefix + "fifos/" + name)
    os.chdir(prefix + "deep")
    open("version", "w").close()
    for _ in range(1100):
        os.mkdir("nest")
        os.chdir("nest")
"""
LEASE = """
import fcntl, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
prefix, *places = sys.argv[1:]
held = []
for place in places:
    folder = place + "/" + prefix + "lease"
    os.mkdir(folder)
    for name in ("version", "store.lock"):
        fd = os.open(folder + "/" + name, os.O_RDWR | os.O_CREAT)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        held.append(fd)
print("held", flush=True)
signal.pause()
"""


@contextlib.contextmanager
def planted(uid: int, *places: Path) -> Iterator[str]:
    """Have another user plant folders that look like stores; give what their names start with.

    The names are this call's own: the same test runs beside this one with another user, in the same shared memory.
    """
    prefix = f"promgun-planted-{secrets.token_hex(4)}-"
    try:
        as_workers(PLANT_STORES, prefix, *places, uid=uid)
        with running_as(uid, LEASE, prefix, *places) as output:
            assert output.readline() == "held\n"
            yield prefix
    finally:
        for place in places:
            subprocess.run(["rm", "-rf", *place.glob(f"{prefix}*")], check=True)


@pytest.mark.parametrize("whose", ["a neighbour's", "the workers'"])
def test_planted_stores_neither_stop_nor_delay_a_start(sandbox: Sandbox, whose: str) -> None:
    uid = nobody().pw_uid if whose == "the workers'" else 64321
    begun = time.monotonic()
    with RootServer(sandbox=sandbox) as server:
        server.expect(REQUESTS, server.serve(2))
    usual = time.monotonic() - begun
    with planted(uid, SHARED_MEMORY, sandbox.temporary) as prefix:
        begun = time.monotonic()
        with RootServer(sandbox=sandbox) as server:
            server.expect(REQUESTS, server.serve(2))
        # A lease that is waited for takes 45 s.
        assert time.monotonic() - begun < 2 * usual + 20
        assert "Traceback" not in server.log
        if whose != "the workers'":
            assert (SHARED_MEMORY / f"{prefix}lease" / "version").exists()
            assert (SHARED_MEMORY / f"{prefix}deep" / "nest").exists()
    assert Path("/etc/passwd").exists()
