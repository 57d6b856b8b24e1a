"""Draw the pictures of the documentation from the real program: ``python -m tools.draw_pictures``, in the repository's root.

It runs a server, puts a minute of load on it from this machine, and takes what ``tmux`` and Chromium show of it.
"""

from __future__ import annotations

import io
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.browser import Browser
from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import Address, Request, load

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
#: Seconds of load: the charts show a minute.
MINUTE = 62.0
DEADLINE = 30.0
#: What the load consists of, again and again: quick requests, of which few fail, and slow ones.
QUICK = tuple(
    Request(path)
    for path in ("/fast", "/order/book", "/slow?seconds=0.02", "/stream", "/fast", "/order/pen") * 10 + ("/status/404",)
)
SLOW = tuple(Request(f"/slow?seconds={seconds}") for seconds in (0.2, 0.7, 0.3, 0.1, 0.5, 0.4, 0.2, 0.3))
#: Slow requests at a time, turn by turn: few, many, few.
TIDE = (2, 3, 4, 6, 8, 6, 4, 3)
#: As rich's own format (15.0), without its fonts, which it would have the reader fetch from elsewhere, and without its
#: outer clipping, which cuts underscores off the last line.
SVG = """\
<svg viewBox="0 0 {width} {height}" width="{width}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@dataclass(frozen=True, slots=True)
class View:
    """A command's picture: its file, its words after ``promgun``, and the terminal it runs in.

    One that ``lasts`` is taken after the minute of load, any other when it has ended.
    """

    file: str
    words: str
    columns: int = 100
    lines: int = 40
    lasts: bool = False


VIEWS = (
    View("top.svg", "metrics top", lines=20, lasts=True),
    View("top-once.svg", "metrics top --once"),
    View("ps.svg", "ps", columns=120),
    View("requests.svg", "ps --requests"),
    View("dump.svg", "metrics dump --format table --match *requests* --match *queue*", columns=132),
)


class Tmux:
    """A terminal that knows what is on its screen, for one command."""

    def __init__(self, sandbox: Sandbox, view: View) -> None:
        self._sandbox = sandbox
        self._socket = sandbox.directory / view.file.replace(".svg", ".tmux")
        self._base = ("tmux", "-S", str(self._socket), "-f", "/dev/null")
        program = str(Path(sys.executable).with_name("promgun"))
        size = ("-x", str(view.columns), "-y", str(view.lines))
        # The session outlives the command, and says nothing of its own about its end.
        keep = ("set", "-g", "remain-on-exit", "on", ";", "set", "-g", "remain-on-exit-format", "", ";")
        self._tell("start-server", ";", *keep, "new-session", "-d", *size, program, *view.words.split())

    def _tell(self, *words: str) -> str:
        finished = subprocess.run(
            [*self._base, *words],
            env=self._sandbox.environment({"LANG": "C.UTF-8", "TERM": "xterm-256color", "NO_COLOR": ""}),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
        return finished.stdout

    def wait(self) -> None:
        """Wait for the end of the command."""
        wait_until(lambda: self._tell("display-message", "-p", "#{pane_dead}").strip() == "1")

    def screen(self) -> str:
        """Return what is on the screen, with its colours as escape sequences."""
        return self._tell("capture-pane", "-p", "-e", "-N").rstrip("\n")

    def close(self) -> None:
        """End the command and the terminal."""
        self._tell("kill-server")
        # tmux 3.3 leaves its socket behind when it is told to end.
        self._socket.unlink(missing_ok=True)


@contextmanager
def terminal(sandbox: Sandbox, view: View) -> Iterator[Tmux]:
    """Run a view's command in a terminal."""
    shown = Tmux(sandbox, view)
    try:
        yield shown
    finally:
        shown.close()


@contextmanager
def traffic(address: Address) -> Iterator[None]:
    """Keep a server busy: quick requests all the time, a varying number of slow ones, a failure every few seconds."""
    over = threading.Event()

    def quick() -> None:
        for turn in itertools.count():
            if over.is_set():
                return
            load(address, [*QUICK, Request("/fail")] if turn % 8 == 0 else QUICK, concurrency=2)

    def slow() -> None:
        for connections in itertools.cycle(TIDE):
            if over.is_set():
                return
            load(address, SLOW * 2, concurrency=connections)

    threads = [threading.Thread(target=send_on) for send_on in (quick, slow)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def draw(screen: str, view: View) -> None:
    """Write a screen as SVG."""
    console = Console(record=True, file=io.StringIO(), width=view.columns, force_terminal=True, legacy_windows=False)
    # Below the last line of a command that ended there is nothing to see.
    console.print(Text.from_ansi(screen if view.lasts else screen.rstrip()), soft_wrap=True)
    name = Path(view.file).stem
    svg = console.export_svg(title=f"promgun {view.words}", code_format=SVG, unique_id=name)
    (PICTURES / view.file).write_text("".join(f"{line.strip()}\n" for line in svg.splitlines() if line.strip()))


def main() -> None:
    """Take all pictures of one server in one run, so that they agree with each other."""
    options = ("--worker-type", "gthread", "--threads", "4", "--max-requests", "50000", "--name", "shop")
    lasting = next(view for view in VIEWS if view.lasts)
    with (
        Sandbox() as sandbox,
        PromgunProcess(*options, sandbox=sandbox, workers=2) as server,
        traffic(server.address),
        Browser(sandbox) as browser,
        terminal(sandbox, lasting) as top,
    ):
        browser.resize(1280, 900)
        browser.open("http://{}:{}/".format(*server.metrics_address))
        end = time.monotonic() + MINUTE
        time.sleep(MINUTE / 2)
        server.send_signal(signal.SIGKILL, server.workers()[0])
        time.sleep(end - time.monotonic())
        draw(top.screen(), lasting)
        (PICTURES / "status-page.png").write_bytes(browser.screenshot())
        for view in VIEWS:
            if view is not lasting:
                with terminal(sandbox, view) as shown:
                    shown.wait()
                    draw(shown.screen(), view)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    main()
