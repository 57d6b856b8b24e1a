"""A terminal while a program has all of it: single keys, signals, and everything put back at the end."""

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
#: An arrow, a function key and their kin (ECMA-48 control sequences, SS3): no key of ours is in them.
_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)


class TerminalInput:
    """Reads keys one by one, without echo, within a ``with`` block; usable in the main thread only.

    Ctrl-C raises ``KeyboardInterrupt`` in the block, SIGTERM and SIGHUP ``SystemExit`` with 128 + the signal's number;
    a second one of them is not heard, so that what the block puts back is put back. ``stdin`` that is no terminal
    gives no keys.
    """

    def __init__(self, stdin: int) -> None:
        self._stdin = stdin
        self._undo = ExitStack()
        self._wake = -1
        self._reads_keys = os.isatty(stdin)

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._listen(undo)
            self._take_keys(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        deafen()
        self._undo.close()

    def _listen(self, undo: ExitStack) -> None:
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()
        undo.callback(os.close, self._wake)
        undo.callback(os.close, wake)
        undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(wake, warn_on_full_buffer=False))
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = dict.fromkeys(_EVENTS, _note)
        handlers |= dict.fromkeys(_ENDS, _end)
        for number, handler in handlers.items():
            # whoever started us may have said that a signal is not for us (nohup)
            if signal.getsignal(number) is not signal.SIG_IGN:
                undo.callback(signal.signal, number, signal.signal(number, handler))

    def _take_keys(self, undo: ExitStack) -> None:
        if not self._reads_keys:
            return
        before = termios.tcgetattr(self._stdin)
        undo.callback(_restore, self._stdin, before)
        tty.setcbreak(self._stdin)

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys and signals, at most so long; ``CLOSED`` is the end of a terminal that went away."""
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


def stop_here() -> None:
    """Stop this process as Ctrl-Z does when nobody catches it; returns when it is continued."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, before)


def deafen() -> None:
    """Hear no more of the signals that end or stop a program, while it puts things back."""
    for number in (*_ENDS, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the wake-up descriptor has it."""


def _end(number: int, _frame: FrameType | None) -> None:
    deafen()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _restore(stdin: int, before: list[Any]) -> None:
    # A terminal that is gone needs nothing. What was typed and not read is not for the shell.
    with suppress(termios.error):
        termios.tcsetattr(stdin, termios.TCSAFLUSH, before)


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends
