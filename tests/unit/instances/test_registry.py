"""The list of running instances: names, trust, and what happens to entries of the dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from promgun.errors import ConfigurationError, InstanceError
from promgun.instances import runtime_directory
from promgun.instances.entries import Run
from promgun.instances.registry import find, handles, instances, live_runs, process_identity, register


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own; not made yet."""
    place = tmp_path / "runtime"
    monkeypatch.setenv("PROMGUN_RUNTIME_DIR", str(place))
    return place


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Another live process."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
        yield other
        other.kill()


def a_run(name: str = "shop", **changes: object) -> Run:
    run = Run(
        name=name,
        pid=os.getpid(),
        started=1000.0,
        application="shop:app",
        worker_type="sync",
        addresses=("http://127.0.0.1:8000",),
        metrics_addresses=("http://127.0.0.1:9164/metrics",),
        store=Path("/dev/shm/promgun-1"),  # noqa: S108 - only a name here
    )
    return replace(run, **changes)  # type: ignore[arg-type] # tests give what fits


def test_registered_run_is_read_back_as_it_was(runtime: Path) -> None:
    path = register(a_run()).path
    assert path.parent == runtime
    assert live_runs() == (a_run(),)
    assert runtime.stat().st_mode & 0o777 == 0o700


def test_registering_again_replaces_the_entry(runtime: Path) -> None:
    first = register(a_run()).path
    changed = a_run(addresses=("http://127.0.0.1:8001",))
    assert register(changed) == (first, changed)
    assert live_runs() == (changed,)
    assert [path.name for path in runtime.glob("*.json")] == [first.name]


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("shop:app", "shop-app"),
        ("shop.wsgi:make('a b')", "shop.wsgi-make-a-b"),
        ("../../etc", "etc"),
        ("--", "promgun"),
        ("x" * 99, "x" * 64),
        ("x" * 63 + "-y", "x" * 63),
        ("caf\u00e9 \U0001f6d2\n<b>", "caf-b"),
        ("\ud800", "promgun"),
    ],
)
@pytest.mark.usefixtures("runtime")
def test_name_is_cleaned(given: str, cleaned: str) -> None:
    assert register(a_run(given)).run.name == cleaned
    assert [run.name for run in live_runs()] == [cleaned]
    assert find(cleaned).pid == os.getpid()


def test_second_instance_of_a_name_is_numbered(runtime: Path, process: subprocess.Popen[bytes]) -> None:
    register(a_run())
    second = a_run(pid=process.pid, store=runtime, started=2000.0)
    register(second)
    register(second)
    assert [run.name for run in live_runs()] == ["shop", "shop-2"]
    assert find("shop-2").pid == process.pid


@pytest.mark.usefixtures("runtime")
def test_masters_of_one_store_are_one_instance(process: subprocess.Popen[bytes]) -> None:
    """After SIGUSR2 two masters serve one store: the newer one answers for both."""
    register(a_run())
    register(a_run(pid=process.pid, started=2000.0))
    assert [run.name for run in live_runs()] == ["shop", "shop"]
    assert find(None).pid == process.pid
    assert find("shop").pid == process.pid
    assert find(str(os.getpid())).pid == os.getpid()


@pytest.mark.usefixtures("runtime")
def test_newest_master_names_the_instance(process: subprocess.Popen[bytes]) -> None:
    """A master that SIGUSR2 started may read another --name: what ps shows for both, --instance takes."""
    register(a_run())
    register(a_run("till", pid=process.pid, started=2000.0))
    assert [run.name for run in live_runs()] == ["till", "till"]
    assert find("till").pid == process.pid
    with pytest.raises(InstanceError, match="Running: till"):
        find("shop")
    process.kill()
    process.wait()
    assert [run.name for run in instances()] == ["shop"], "the upgrade was taken back"


def test_name_goes_before_a_pid(runtime: Path, process: subprocess.Popen[bytes]) -> None:
    register(a_run())
    register(a_run(str(os.getpid()), pid=process.pid, store=runtime))
    assert find(str(os.getpid())).pid == process.pid


@pytest.fixture
def two_lists(runtime: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two instances, registered where neither saw the other, in lists that are then read together."""
    other = runtime.with_name("other")
    register(a_run())
    monkeypatch.setenv("PROMGUN_RUNTIME_DIR", str(other))
    register(a_run(pid=process.pid, store=runtime))
    monkeypatch.setattr(runtime_directory, "candidates", lambda _environ: [runtime, other])


@pytest.mark.usefixtures("two_lists")
def test_pid_tells_two_of_one_name_apart(process: subprocess.Popen[bytes]) -> None:
    with pytest.raises(InstanceError, match=r"2 instances are called 'shop': .*Choose one by its pid") as caught:
        find("shop")
    assert f"shop (pid {process.pid}, shop:app)" in str(caught.value)
    assert find(str(process.pid)).pid == process.pid
    assert sorted(handles()) == sorted(map(str, (os.getpid(), process.pid)))


@pytest.mark.usefixtures("two_lists")
def test_name_in_another_list_is_taken() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as third:
        assert register(a_run(pid=third.pid, store=Path("/dev/shm/third"))).run.name == "shop-2"  # noqa: S108 - a name
        third.communicate()


def test_entry_of_a_dead_process_is_swept(runtime: Path, process: subprocess.Popen[bytes]) -> None:
    path = register(a_run(pid=process.pid)).path
    assert len(live_runs()) == 1
    process.kill()
    process.wait()
    assert live_runs() == ()
    assert not path.exists()
    assert runtime.is_dir()


@pytest.mark.usefixtures("runtime")
def test_zombie_is_dead(process: subprocess.Popen[bytes]) -> None:
    register(a_run(pid=process.pid))
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert live_runs() == ()


@pytest.mark.usefixtures("runtime")
def test_reused_pid_is_not_believed() -> None:
    path = register(a_run()).path
    entry = json.loads(path.read_text())
    machine, _, ticks = entry["process"].rpartition(" ")
    path.write_text(json.dumps(entry | {"process": f"{machine} {int(ticks) - 1}"}))
    assert live_runs() == ()
    assert not path.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pid namespaces are Linux's")
@pytest.mark.usefixtures("runtime")
def test_entry_from_another_pid_namespace_is_left_alone() -> None:
    path = register(a_run()).path
    entry = json.loads(path.read_text())
    boot = entry["process"].partition("/")[0]
    path.write_text(json.dumps(entry | {"process": f"{boot}/pid:[1] 77"}))
    assert live_runs() == ()
    assert path.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="boot ids are Linux's")
@pytest.mark.usefixtures("runtime")
def test_entry_from_before_a_reboot_is_swept() -> None:
    path = register(a_run()).path
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"process": "another-boot/pid:[1] 77"}))
    assert live_runs() == ()
    assert not path.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', '{"pid": 1}', '{"process": "a 1", "addresses": 1, "metrics_addresses": []}']
)
def test_foreign_file_is_passed_over(runtime: Path, text: str) -> None:
    register(a_run())
    (runtime / "1.json").write_text(text)
    assert [run.name for run in live_runs()] == ["shop"]


def test_without_runs_nothing_is_made(runtime: Path) -> None:
    assert live_runs() == ()
    assert not runtime.exists()


@pytest.mark.usefixtures("runtime")
def test_find_says_what_to_do_when_nothing_runs() -> None:
    with pytest.raises(InstanceError, match=r"no running promgun instance\. .*promgun run APP.*--dir or --url"):
        find(None)


def test_find_lists_several(runtime: Path, process: subprocess.Popen[bytes]) -> None:
    register(a_run())
    register(a_run("blog", pid=process.pid, store=runtime))
    with pytest.raises(
        InstanceError, match=r"2 instances are running: .*shop \(pid \d+, shop:app\).*--instance NAME"
    ) as caught:
        find(None)
    assert f"blog (pid {process.pid}" in caught.value.message


@pytest.mark.usefixtures("runtime")
def test_find_of_an_unknown_name_lists_the_known() -> None:
    register(a_run())
    with pytest.raises(InstanceError, match=r"called 'blog'\. Running: shop"):
        find("blog")


def test_names_of_two_at_once_differ(runtime: Path) -> None:
    """Registering is locked: processes that start together never take one name."""
    children = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(8)]
    try:
        threads = [
            threading.Thread(target=register, args=(a_run(pid=child.pid, store=runtime / str(child.pid)),))
            for child in children
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(run.name for run in live_runs()) == ["shop", *(f"shop-{number}" for number in range(2, 9))]
    finally:
        for child in children:
            child.kill()
            child.communicate()


# -- the directory ---------------------------------------------------------------------------------------------------


def test_directory_that_others_may_write_to_is_refused(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o777)
    with pytest.raises(ConfigurationError, match=r"others may write to it.*PROMGUN_RUNTIME_DIR"):
        register(a_run())
    with pytest.raises(ConfigurationError, match="cannot be trusted: others may write"):
        live_runs()


@pytest.mark.needs_root("give a directory away")
def test_foreign_directory_is_refused(runtime: Path) -> None:
    runtime.mkdir()
    os.chown(runtime, 12345, -1)
    with pytest.raises(ConfigurationError, match="it belongs to uid 12345"):
        register(a_run())


@pytest.mark.needs_root("give a directory away")
def test_root_reads_the_directory_of_a_service_that_it_names(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the unit that ``promgun export systemd`` makes: it belongs to the unit's user."""
    register(a_run())
    os.chown(runtime, 12345, -1)
    assert live_runs() == (a_run(),)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(ConfigurationError, match="cannot be trusted: it belongs to uid 12345"):
        live_runs()


@pytest.mark.needs_root("give a directory away")
def test_foreign_session_directory_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``sudo -E``: the caller's XDG_RUNTIME_DIR is not ours to write in."""
    session = tmp_path / "session"
    session.mkdir()
    os.chown(session, 12345, -1)
    monkeypatch.delenv("PROMGUN_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    assert session / "promgun" not in runtime_directory.candidates(os.environ)


def test_session_directory_comes_before_the_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    places = runtime_directory.candidates({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert places[0] == tmp_path / "promgun"
    assert places[-1] == tmp_path / "temporary" / f"promgun-{os.geteuid()}"


def test_readers_look_in_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service has no XDG_RUNTIME_DIR, the login shell of the same user has: each must see the other's runs."""
    monkeypatch.delenv("PROMGUN_RUNTIME_DIR", raising=False)
    (tmp_path / "session").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(
        runtime_directory,
        "candidates",
        lambda environ: [
            *([Path(environ["XDG_RUNTIME_DIR"], "promgun")] if environ.get("XDG_RUNTIME_DIR") else []),
            tmp_path / "temporary" / "promgun",
        ],
    )
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    register(a_run())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    assert [run.name for run in live_runs()] == ["shop"]


def test_identity_lasts_as_long_as_the_process(process: subprocess.Popen[bytes]) -> None:
    first = process_identity(process.pid)
    assert first == process_identity(process.pid) != process_identity(os.getpid())
    process.kill()
    process.wait()
    assert process_identity(process.pid) == ""
