"""The full screen of the terminal view: drawn by rich on the alternate screen, restored however the view ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from promgun.terminal.input import SUSPENDED, TerminalInput, ignore_signals, suspend
from promgun.terminal.output import printable
from promgun.terminal.top.layout import Line

if TYPE_CHECKING:
    from typing_extensions import Self

#: How the text of each role looks; without colours, bold, dim, underlined and reversed text remain.
STYLES = {
    "title": Style(bold=True, reverse=True),
    "heading": Style(bold=True, underline=True),
    "label": Style(dim=True),
    "value": Style(bold=True),
    "plain": Style(),
    "quiet": Style(dim=True),
    "good": Style(color="green"),
    "warn": Style(color="yellow", bold=True),
    "bad": Style(color="red", bold=True),
    "chart": Style(color="cyan"),
    "keys": Style(reverse=True),
}


class Screen:
    """A terminal's alternate screen, in a ``with`` block: what it showed before is back when the block ends."""

    def __init__(self) -> None:
        # COLUMNS and LINES would be the size at the start; without them rich asks the terminal for the present one.
        self.console = _console({name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}})
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ignore_signals()
        self._undo.close()

    def _enter(self) -> None:
        with ExitStack() as undo:
            self._input = undo.enter_context(TerminalInput(sys.stdin.fileno() if sys.stdin else -1))
            self._live = Live(
                console=self.console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            )
            undo.callback(_stop, self._live)
            self._live.start()
            self._undo = undo.pop_all()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        size = self.console.size
        return size.width, size.height

    def show(self, lines: Sequence[Line]) -> None:
        """Draw a frame."""
        self._live.update(Lines(lines), refresh=True)

    def wait(self, seconds: float) -> list[str]:
        """As :meth:`TerminalInput.wait`; Ctrl-Z restores the terminal and stops the process until it is continued."""
        events = self._input.wait(seconds)
        if SUSPENDED in events:
            self._undo.close()
            suspend()
            self._enter()
        return events


def _console(environ: Mapping[str, str], width: int | None = None) -> Console:
    # An empty NO_COLOR does not switch colour off (no-color.org); rich 13.7 takes it as set.
    environ = {name: value for name, value in environ.items() if value or name != "NO_COLOR"}
    return Console(width=width, highlight=False, markup=False, emoji=False, legacy_windows=False, _environ=environ)


def _stop(live: Live) -> None:
    # The terminal may be gone.
    with suppress(OSError):
        live.stop()


class Lines:
    """Lines for rich to write: a ``rich.table.Table`` would cost ten times as much CPU, most of what a frame may."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        new_line = Segment.line()
        for line in self._lines:
            for text, role in line:
                yield Segment(printable(text), STYLES[role])
            yield new_line


def print_lines(lines: Sequence[Line], width: int | None) -> None:
    """Print lines once: styled on a terminal of this ``width``, as plain text in a pipe (``None``)."""
    if width is None:
        sys.stdout.write("".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines))
        return
    _console(os.environ, width).print(Lines(lines), end="")
