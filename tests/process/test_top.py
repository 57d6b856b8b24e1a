"""``promgun metrics top`` on real terminals, and ``promgun ps --requests``, beside real servers."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.cells import cell_len

from promgun.collect.reading import InstanceReader
from promgun.status import from_store
from promgun.status.from_page import snapshot_of
from tests.support.harness import DEADLINE, PromgunProcess, Sandbox, wait_until
from tests.support.http_client import NoAnswer, load, send

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

TOP = ("-m", "promgun", "metrics", "top")
ENTER, LEAVE, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
HOME = "\x1b[H"
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3|9)\d[;m]")
#: Makes the terminal on standard input the controlling one, as a shell has it, so that Ctrl-C and resizing arrive.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class OnTerminal:
    """A Python program on a terminal of its own, everything it writes kept in ``output``."""

    def __init__(self, sandbox: Sandbox, *args: str, **environ: str) -> None:
        self.output = ""
        self._master, self.terminal = pty.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(self.terminal)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, sys.executable, *args],
            cwd=sandbox.directory,
            env=sandbox.environment({"TERM": "xterm-256color", "LANG": "C.UTF-8", "NO_COLOR": "", **environ}),
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.terminal)
        self._reader.join()
        os.close(self._master)

    def _read(self) -> None:
        # reading fails with EIO when nobody has the terminal open any more
        with suppress(OSError):
            while data := os.read(self._master, 65536):
                self.output += data.decode(errors="replace")

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    @property
    def frame(self) -> list[str]:
        """The lines of the last whole frame, without escape sequences."""
        frames = self.output.split(LEAVE)[0].split(HOME)[1:]
        return _ESCAPES.sub("", frames[-1]).split("\r\n") if frames else []

    def shows(self, *parts: str) -> str:
        """Wait until all of these are on the screen at once; return its text."""
        return wait_until(
            lambda: next((text for text in ["\n".join(self.frame)] if all(part in text for part in parts)), None),
            message=lambda: f"{parts} in:\n" + "\n".join(self.frame) + repr(self.output[-500:]),
        )

    def ends(self) -> int:
        """Wait for the end; everything must be as it was before."""
        code = self.process.wait(DEADLINE)
        wait_until(lambda: LEAVE in self.output, message=lambda: repr(self.output[-500:]))
        assert self.output.count(ENTER) == self.output.count(LEAVE)
        assert self.output.rindex(SHOW_CURSOR) > self.output.rindex(ENTER)
        assert termios.tcgetattr(self.terminal) == self.before
        return code


@pytest.fixture(scope="module")
def server() -> Iterator[PromgunProcess]:
    with PromgunProcess(
        "-k", "gthread", "--threads", "4", "--max-requests", "1000000", "--name", "shop", workers=2
    ) as it:
        yield it


@contextmanager
def busy(server: PromgunProcess, path: str = "/slow?seconds=0.05") -> Iterator[None]:
    """Keep three connections busy."""
    over = threading.Event()

    def keep_busy() -> None:
        while not over.is_set():
            load(server.address, 30, concurrency=3, path=path)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def held(server: PromgunProcess, path: str) -> Iterator[None]:
    """Send one request that lasts, and do not wait for its answer."""

    def ask() -> None:
        with suppress(OSError, NoAnswer):
            send(server.address, path=path)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    thread.join()


def once(server: PromgunProcess, *args: str) -> subprocess.CompletedProcess[str]:
    return server.sandbox.run(*TOP, "--interval", "0.2", *args)


# -- one frame -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("--once",), (), ("--once", "--instance", "shop")], ids=" ".join)
def test_one_frame_for_a_pipe(server: PromgunProcess, args: tuple[str, ...]) -> None:
    def frame_of_running_requests() -> subprocess.CompletedProcess[str] | None:
        # On a busy machine a moment may come in which the clients have not yet sent their next requests.
        printed = once(server, *args)
        return printed if printed.returncode or "GET /slow" in printed.stdout else None

    with busy(server):
        printed = wait_until(frame_of_running_requests)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "\x1b" not in printed.stdout
    for part in (
        "shop  promgun.demo:app  gthread  up ",
        "2 of 2: ",
        " /s",
        "p99",
        "queue",
        "SLOT",
        "exits",
    ):
        assert part in printed.stdout
    assert [str(pid) in printed.stdout for pid in server.workers()] == [True, True]
    rate = re.search(r"requests +([\d.]+) /s", printed.stdout)
    assert rate is not None
    assert 0 < float(rate[1]) < 70, "three at a time take 50 ms each"


def test_page_of_another_machine(server: PromgunProcess) -> None:
    with held(server, "/slow?seconds=4&token=secret"):
        server.expect("gunicorn_worker_requests_in_progress", 1)
        printed = once(server, "--url", "{}:{}".format(*server.metrics_address))
    assert printed.returncode == 0, printed.stderr
    assert "in use    1 of 8" in printed.stdout
    assert "gthread  up " in printed.stdout
    assert re.search(r"^ +\d+ +– +busy +[\d.]+s ", printed.stdout, re.MULTILINE), printed.stdout  # noqa: RUF001 - a dash


# -- the terminal ----------------------------------------------------------------------------------------------------


def test_screen_follows_keys_and_window(server: PromgunProcess) -> None:
    with OnTerminal(server.sandbox, *TOP, "--interval", "0.5") as top, busy(server):
        text = top.shows("promgun top  shop", "2 of 2", "GET /slow", "every 0.5 s", "LEFT", "█")
        assert ENTER in top.output
        assert max(map(cell_len, text.split("\n"))) <= 80
        top.press("s")
        top.shows("sort: requests")
        top.press("+")
        top.shows("every 1 s")
        top.press("--")
        top.shows("every 0.2 s")
        top.press("p")
        top.shows("PAUSED", "p go on")
        top.press("?")
        top.shows("half (95 %, 99 %) of the last interval")
        top.press("\x1b[Aq")
        assert top.ends() == 0


def test_window_is_followed_at_once(server: PromgunProcess) -> None:
    with OnTerminal(server.sandbox, *TOP, "--interval", "60", COLUMNS="80", LINES="24") as top:
        top.shows("promgun top  shop")
        top.resize(200, 50)
        wait_until(lambda: len(top.frame) == 50 and all(cell_len(line) == 200 for line in top.frame))
        top.resize(60, 12)
        wait_until(lambda: len(top.frame) == 12 and all(cell_len(line) == 60 for line in top.frame))
        top.press("q")
        assert top.ends() == 0


ENDS: dict[str, tuple[Callable[[OnTerminal], None], int]] = {
    "Ctrl-C": (lambda top: top.press("\x03"), 0),
    "SIGTERM": (lambda top: top.process.send_signal(signal.SIGTERM), 128 + signal.SIGTERM),
    "SIGHUP": (lambda top: top.process.send_signal(signal.SIGHUP), 128 + signal.SIGHUP),
}


@pytest.mark.parametrize("name", ENDS)
def test_terminal_is_left_as_it_was_found(server: PromgunProcess, name: str) -> None:
    end, code = ENDS[name]
    with OnTerminal(server.sandbox, *TOP) as top:
        top.shows("promgun top  shop")
        assert termios.tcgetattr(top.terminal) != top.before, "keys come one by one"
        end(top)
        assert top.ends() == code
        assert "Traceback" not in top.output


def test_terminal_is_left_as_it_was_found_after_a_crash(sandbox: Sandbox) -> None:
    code = "from promgun.terminal.top.screen import Screen\nwith Screen() as s: s.show([[('x', 'plain')]]); 1 / 0"
    with OnTerminal(sandbox, "-c", code) as crashed:
        assert crashed.ends() == 1
        wait_until(lambda: "ZeroDivisionError" in crashed.output.split(LEAVE)[-1], message="told on the normal screen")


def test_colours_can_be_refused(server: PromgunProcess) -> None:
    for environ, coloured in (({"NO_COLOR": "1"}, False), ({}, True)):
        with OnTerminal(server.sandbox, *TOP, "--interval", "0.2", **environ) as top, busy(server):
            top.shows("▁")
            top.press("q")
            assert top.ends() == 0
        assert bool(_COLOUR.search(top.output)) == coloured


def test_terminal_that_cannot_be_drawn_on_gets_one_frame(server: PromgunProcess) -> None:
    with OnTerminal(server.sandbox, *TOP, "--interval", "0.2", TERM="dumb") as top:
        assert top.process.wait(DEADLINE) == 0
        wait_until(lambda: "exits" in top.output)
        assert ENTER not in top.output


def test_instance_that_goes_away_is_waited_for(sandbox: Sandbox) -> None:
    with ExitStack() as first:
        server = first.enter_context(PromgunProcess("--name", "shop", sandbox=sandbox, workers=1))
        with OnTerminal(sandbox, *TOP, "--interval", "0.2") as top:
            top.shows("1 of 1: 1 idle")
            assert server.workers()
            first.close()
            top.shows("gone since ", "waiting for it: shop is not running")
            with PromgunProcess("--name", "shop", sandbox=sandbox, workers=2):
                assert "gone since" not in top.shows("2 of 2: 2 idle")
                top.press("q")
                assert top.ends() == 0


def test_killed_worker_shows_with_its_cause(sandbox: Sandbox) -> None:
    with PromgunProcess(sandbox=sandbox, workers=2) as server, OnTerminal(sandbox, *TOP, "--interval", "0.2") as top:
        top.shows("2 of 2: 2 idle", "exits     none")
        os.kill(server.workers()[0], signal.SIGKILL)
        top.shows("killed 1 (+1)", "2 of 2")
        assert re.search(r"^ +\d\d:\d\d:\d\d  killed *$", "\n".join(top.frame), re.MULTILINE)
        top.press("q")
        assert top.ends() == 0


def test_a_frame_costs_little(server: PromgunProcess) -> None:
    with OnTerminal(server.sandbox, *TOP, "--interval", "0.2") as top, busy(server):
        top.shows("▁")
        process = psutil.Process(top.process.pid)
        before, frames = process.cpu_times(), top.output.count(HOME)
        wait_until(lambda: top.output.count(HOME) >= frames + 20)
        after, drawn = process.cpu_times(), top.output.count(HOME) - frames
        seconds = after.user + after.system - before.user - before.system
        top.press("q")
        assert top.ends() == 0
    assert seconds / drawn <= 0.01, "1 % of a CPU at a frame a second"


# -- tmux ------------------------------------------------------------------------------------------------------------


class Tmux:
    """A terminal emulator with a shell in it."""

    def __init__(self, sandbox: Sandbox, columns: int, lines: int) -> None:
        self._name = f"promgun-{uuid.uuid4().hex[:8]}"
        self._environ = sandbox.environment({"LANG": "C.UTF-8", "PS1": "$ "})
        self("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), "sh")

    def __call__(self, *args: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._name, *args], env=self._environ, capture_output=True, text=True, check=True
        )
        return done.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self("kill-server")

    def shows(self, *parts: str) -> list[str]:
        """Wait until all of these are on the screen at once; return its lines."""
        text = wait_until(
            lambda: next((text for text in [self("capture-pane", "-p")] if all(part in text for part in parts)), None),
            message=lambda: f"{parts} in:\n" + self("capture-pane", "-p"),
        )
        return text.split("\n")


@pytest.mark.needs("tmux")
@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=str)
def test_everything_is_on_the_screen_of_a_terminal_emulator(server: PromgunProcess, size: tuple[int, int]) -> None:
    parts = (
        "requests",
        "errors",
        "utilised",
        "queue",
        "p50",
        "p95",
        "p99",
        "in use",
        "SLOT",
        "REQUEST",
        "LEFT",
        "exits",
    )
    with Tmux(server.sandbox, *size) as tmux, busy(server):
        tmux("send-keys", f"{sys.executable} {' '.join(TOP)} --interval 0.2; echo left with $?", "Enter")
        lines = tmux.shows("promgun top  shop", "GET /slow", "█", "q quit", *parts)
        assert max(map(cell_len, lines)) <= size[0]
        assert lines[size[1] - 1].startswith("q quit"), "the last line is the last of the screen"
        tmux("send-keys", "q")
        lines = tmux.shows("left with 0")
        assert not any("q quit" in line for line in lines), "the screen is what it was before"


@pytest.mark.needs("tmux")
def test_stopped_and_continued(server: PromgunProcess) -> None:
    with Tmux(server.sandbox, 80, 24) as tmux:
        tmux("send-keys", f"{sys.executable} {' '.join(TOP)}", "Enter")
        tmux.shows("q quit")
        tmux("send-keys", "C-z")
        lines = tmux.shows("Stopped")
        assert not any("q quit" in line for line in lines)
        tmux("send-keys", "echo typed $((40 + 2))", "Enter")
        assert any(line.endswith("echo typed $((40 + 2))") for line in tmux.shows("typed 42")), "typing is echoed again"
        tmux("send-keys", "fg", "Enter")
        tmux.shows("q quit", "2 of 2")
        tmux("send-keys", "q")
        tmux.shows("typed 42")


# -- the model, against the page -------------------------------------------------------------------------------------


def test_cheap_snapshot_says_what_the_page_says(server: PromgunProcess) -> None:
    load(server.address, 20, path="/fast")
    send(server.address, path="/fail")
    (entry,) = server.sandbox.runs()
    reader = InstanceReader(Path(entry["store"]))

    def agree() -> bool:
        cheap = from_store.snapshot_of(reader.read(whole=False))
        whole = snapshot_of(
            text_string_to_metric_families(server.fresh().text), taken=cheap.taken, at=cheap.at, details=cheap.details
        )
        same = ("requests", "exits", "queues", "info", "target", "states", "in_progress", "capacity")
        # The buckets of the one are finer; all requests are in both.
        counted = [max(seen.durations.values(), default=0) for seen in (cheap, whole)]
        return (
            counted[0] == counted[1]
            and all(getattr(whole, name) == getattr(cheap, name) for name in same)
            and all(
                cheap.slots[slot].requests == totals.requests and cheap.slots[slot].busy == pytest.approx(totals.busy)
                for slot, totals in whole.slots.items()
            )
        )

    wait_until(agree)


# -- ps --requests ---------------------------------------------------------------------------------------------------


def requests_now(server: PromgunProcess) -> list[dict[str, Any]]:
    done = server.sandbox.run("-m", "promgun", "ps", "--requests", "--format", "json")
    assert done.returncode == 0, done.stderr
    read: list[dict[str, Any]] = json.loads(done.stdout)
    return read


def test_requests_of_a_stopped_and_of_a_killed_worker(sandbox: Sandbox) -> None:
    with PromgunProcess("--timeout", "60", "--name", "shop", sandbox=sandbox, workers=1) as server:
        (pid,) = server.workers()
        with held(server, "/slow?seconds=10&token=secret"):
            (row,) = wait_until(lambda: [row for row in requests_now(server) if row["phase"] == "application"])
            assert (row["instance"], row["pid"], row["state"], row["method"]) == ("shop", pid, "busy", "GET")
            assert (row["path"], row["client"], row["requests_in_progress"]) == ("/slow", "127.0.0.1", 1)
            os.kill(pid, signal.SIGSTOP)
            (stopped,) = requests_now(server)
            assert stopped["age_seconds"] > row["age_seconds"]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: [row for row in requests_now(server) if row["pid"] != pid])
            assert [row["phase"] for row in requests_now(server)] == [None]
