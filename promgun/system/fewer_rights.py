"""Lets a child with another user's rights do work for root, so that root never parses what that user wrote.

The child is a fork, because the other user may not be allowed to read the code's files. Once it has changed its user,
the kernel lets nobody but root trace it or read its memory (ptrace(2), "dumpable").
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable

_LENGTH = 8
_CHUNK = 1 << 20
#: The most bytes of one answer: a page, see PAGE_LIMIT of ``page_source``.
MOST_BYTES = 256 << 20
#: Seconds to wait for an answer: the other user may stop the child.
DEADLINE = 30.0


def become(uid: int, gid: int) -> None:
    """Give up root's rights for good, for this user and this one group; raises ``OSError``."""
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)


class Child:
    """A fork that runs as another user and answers questions; raises ``OSError`` if it cannot be made.

    ``answer`` is called in it for each question and must not raise.
    """

    def __init__(self, uid: int, gid: int, answer: Callable[[], bytes], *, deadline: float = DEADLINE) -> None:
        self._deadline = deadline
        questions, self._ask_fd = os.pipe()
        self._answer_fd, answers = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                os.close(self._ask_fd)
                os.close(self._answer_fd)
                # Ctrl-C is meant for the parent, which then closes the pipe; that ends the child.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                become(uid, gid)
                _serve(questions, answers, answer)
            finally:
                os._exit(0)
        os.close(questions)
        os.close(answers)

    def ask(self) -> bytes:
        """Return the answer; raises ``OSError`` when it does not come in time or is too long. Close the child then."""
        try:
            os.write(self._ask_fd, b"?")
        except BrokenPipeError:
            raise OSError(None, "the process that reads it has ended") from None
        until = time.monotonic() + self._deadline
        length = int.from_bytes(self._read(_LENGTH, until), "little")
        if length > MOST_BYTES:
            raise OSError(None, f"more than {MOST_BYTES >> 20} MiB")
        return self._read(length, until)

    def _read(self, length: int, until: float) -> bytes:
        data = bytearray()
        while len(data) < length:
            ready, _, _ = select.select([self._answer_fd], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError(None, f"not read after {self._deadline:g} s")
            chunk = os.read(self._answer_fd, min(_CHUNK, length - len(data)))
            if not chunk:
                raise OSError(None, "the process that reads it has ended")
            data += chunk
        return bytes(data)

    def close(self) -> None:
        """End it."""
        if self._pid:
            pid, self._pid = self._pid, 0
            os.close(self._ask_fd)
            os.close(self._answer_fd)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _serve(questions: int, answers: int, answer: Callable[[], bytes]) -> None:
    while os.read(questions, 1):
        content = answer()
        rest = memoryview(len(content).to_bytes(_LENGTH, "little") + content)
        while rest:
            rest = rest[os.write(answers, rest) :]
