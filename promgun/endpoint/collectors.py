"""The application's own collectors (``--metrics-collector``): run in one process, which is killed at its deadline."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from promgun.config.collectors import AppCollectors
from promgun.endpoint.collected_families import checked_families

logger = logging.getLogger("promgun.endpoint")

SECONDS = 5.0
#: The application that a collector belongs to may be large.
_LOAD_SECONDS = 30.0
_END_SECONDS = 0.5
_MOST_BYTES = 1 << 24
_MOST_REFUSED = 1000
#: Seconds until the next try, by how many have failed in a row, so that pages do not wait for long again and again.
_PAUSES = (0.0, 0.0, 5.0, 15.0, 60.0)

_CODE = """\
import json, sys
sys.path[:0] = json.loads(sys.argv[2])
sys.path.append(sys.argv[4])
from promgun.endpoint.collector_process import run
run(json.loads(sys.argv[1]), int(sys.argv[3]))
"""


class CollectorProcess:
    """Asks the collectors for their families; to be used from one thread, which must live as long as the process.

    Nothing here raises: families that a collector fails to give are left out, and each message is logged once.
    """

    def __init__(
        self,
        collectors: AppCollectors,
        folder: str,
        *,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collectors = collectors
        self._folder = folder
        self._seconds = seconds
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._loaded = False
        self._buffer = bytearray()
        self._failed = 0
        self._not_before = 0.0
        self._said: set[str] = set()
        self._refused: set[str] = set()

    def families(self) -> list[Metric]:
        """Return what the collectors tell now, after at most the deadline."""
        if not self._collectors.names or self._clock() < self._not_before:
            return []
        deadline = self._clock() + self._seconds
        try:
            return self._ask(deadline)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            self._fail(f"did not answer: {error}")
            return []

    @property
    def refused(self) -> int:
        """How many families could not be shown so far, each counted once."""
        return len(self._refused)

    def refuse(self, family: str, reason: str) -> None:
        """Note a family that cannot be shown; it is logged and counted once."""
        if family not in self._refused and len(self._refused) < _MOST_REFUSED:
            self._refused.add(family)
            logger.warning("The application's collectors: the family %r is not shown: %s", family, reason)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        _kill(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()

    def _ask(self, deadline: float) -> list[Metric]:
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None  # noqa: S101 - just started
        assert process.stdin is not None  # noqa: S101 - a pipe
        if not self._loaded:
            first = self._line(deadline)
            if first is None:
                if self._clock() - self._started > _LOAD_SECONDS:
                    self._fail(f"were not loaded within {_LOAD_SECONDS:g} s")
                return []
            self._loaded = True
            self._complain(json.loads(first)["errors"])
        os.write(process.stdin.fileno(), b"\n")
        line = self._line(deadline)
        if line is None:
            self._fail(f"took longer than {self._seconds:g} s")
            return []
        answer = json.loads(line)
        self._complain(answer["errors"])
        self._failed = 0
        return checked_families(answer["families"], self.refuse)

    def _start(self) -> None:
        self._buffer.clear()
        self._loaded = False
        self._started = self._clock()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _CODE,
                json.dumps(self._collectors.names),
                json.dumps(self._collectors.paths),
                str(os.getpid()),
                self._folder,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def _line(self, deadline: float) -> bytes | None:
        """Return the next line, ``None`` at the deadline; raises ``OSError`` when the process has ended."""
        process = self._process
        assert process is not None  # noqa: S101 - called with one
        assert process.stdout is not None  # noqa: S101 - a pipe
        fd = process.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while (end := self._buffer.find(b"\n")) < 0:
            left = deadline - self._clock()
            if left <= 0 or not poll.poll(left * 1000):
                return None
            data = os.read(fd, 1 << 16)
            if not data:
                # It may live on without its end of the pipe.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END_SECONDS)
                _kill(process)
                raise OSError(f"their process ended with status {process.wait()}")
            self._buffer += data
            if len(self._buffer) > _MOST_BYTES:
                raise OSError(f"their page is larger than {_MOST_BYTES >> 20} MiB")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _fail(self, reason: str) -> None:
        self.close()
        self._failed += 1
        self._not_before = self._clock() + _PAUSES[min(self._failed, len(_PAUSES)) - 1]
        self._complain([f"{', '.join(self._collectors.names)} {reason}; another process is started"])

    def _complain(self, errors: Iterable[str]) -> None:
        for error in errors:
            if error not in self._said and len(self._said) < 100:  # noqa: PLR2004 - messages may have numbers in them
                self._said.add(error)
                logger.warning("The application's collectors: %s", error)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started: it leads a session of its own."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
