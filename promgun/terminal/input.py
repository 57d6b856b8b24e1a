"""Single keys and signals for a full-screen program; the terminal's settings and the handlers are restored."""

from __future__ import annotations

import os
import re
import select
import signal
import termios
import tty
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

#: What :meth:`TerminalInput.wait` returns beside keys.
RESIZED = "resized"
SUSPENDED = "suspended"
CLOSED = "closed"
_EVENTS = {signal.SIGWINCH: RESIZED, signal.SIGTSTP: SUSPENDED}
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Arrows, function keys and others that send a sequence (ECMA-48, SS3): none is a key of ours, so they are dropped.
_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)


class TerminalInput:
    """Reads keys one by one, without echo, in a ``with`` block; usable in the main thread only.

    Ctrl-C raises ``KeyboardInterrupt`` in the block, SIGTERM and SIGHUP ``SystemExit`` with 128 + the signal's number;
    a second one is ignored, so that the terminal is restored. A ``stdin`` that is not a terminal gives no keys.
    """

    def __init__(self, stdin: int) -> None:
        self._stdin = stdin
        self._undo = ExitStack()
        self._wake = -1
        self._reads_keys = os.isatty(stdin)

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._catch_signals(undo)
            self._read_single_keys(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ignore_signals()
        self._undo.close()

    def _catch_signals(self, undo: ExitStack) -> None:
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()
        undo.callback(os.close, self._wake)
        undo.callback(os.close, wake)
        undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(wake, warn_on_full_buffer=False))
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = dict.fromkeys(_EVENTS, _note)
        handlers |= dict.fromkeys(_ENDS, _end)
        for number, handler in handlers.items():
            # A signal that the parent process had ignored, as nohup does, stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                undo.callback(signal.signal, number, signal.signal(number, handler))

    def _read_single_keys(self, undo: ExitStack) -> None:
        if not self._reads_keys:
            return
        before = termios.tcgetattr(self._stdin)
        undo.callback(_restore, self._stdin, before)
        tty.setcbreak(self._stdin)

    def wait(self, seconds: float) -> list[str]:
        """Wait at most ``seconds`` for keys and signals and return them; ``CLOSED`` means that the terminal is gone."""
        sources = [self._wake, self._stdin] if self._reads_keys else [self._wake]
        ready, _, _ = select.select(sources, (), (), max(0.0, seconds))
        found = []
        if self._wake in ready:
            numbers = os.read(self._wake, 1024)
            found += [event for number, event in _EVENTS.items() if number in numbers]
        if self._stdin in ready:
            found += self._keys()
        return found

    def _keys(self) -> list[str]:
        typed = b""
        with suppress(OSError):
            typed = os.read(self._stdin, 1024)
        if not typed:
            self._reads_keys = False
            return [CLOSED]
        return list(_SEQUENCE.sub("", typed.decode(errors="ignore")))


def suspend() -> None:
    """Stop this process as Ctrl-Z does by default; returns when it is continued."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, before)


def ignore_signals() -> None:
    """Ignore the signals that end or stop a program, while it restores the terminal."""
    for number in (*_ENDS, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the signal's number is written to the wake-up descriptor (``signal.set_wakeup_fd``)."""


def _end(number: int, _frame: FrameType | None) -> None:
    ignore_signals()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _restore(stdin: int, before: list[Any]) -> None:
    # A terminal that is gone cannot be restored. Keys that were not read are discarded, not left to the shell.
    with suppress(termios.error):
        termios.tcsetattr(stdin, termios.TCSAFLUSH, before)


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends
