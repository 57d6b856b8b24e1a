"""Decides which master serves metrics when two run with stores of different formats (SIGUSR2 to another version).

Both have the metrics listeners, but their counters are unrelated: if both served, counters would seem to jump back and
forth. The new master therefore leaves a note with its pid in the old one's store. The old master stops its metrics
process and removes the note, and only then does the new one serve. If the new master ends first, the old one serves
again.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from promgun.store.run_directory import RunDirectory, directory_identity
from promgun.system.safe_open import open_folder, read_regular

if TYPE_CHECKING:
    from promgun.config.reexec import Handover
    from promgun.endpoint.supervisor import MetricsProcess

_NOTE = "superseded"
_LIMIT = 32
#: Seconds to wait for the old master: one that does not know of the note never removes it.
_PATIENCE = 5.0


class Succession:
    """Runs a master's metrics process when it is its turn; for the master's main loop only."""

    def __init__(self) -> None:
        self._old_store = -1
        self._until = 0.0
        self._successor = 0

    def supersede(self, handover: Handover) -> None:
        """Ask the old master to step aside, because this version cannot use its store. Never raises."""
        try:
            store_fd = open_folder(handover.store)
        except OSError:
            return
        with contextlib.suppress(OSError):
            if directory_identity(store_fd) == handover.identity:
                _write_note(store_fd)
                self._old_store, self._until = store_fd, time.monotonic() + _PATIENCE
        if self._old_store < 0:
            os.close(store_fd)

    def announce(self, log: Any) -> None:
        """Log in the new master that counters begin anew."""
        if self._old_store >= 0:
            log.warning("The old master's store has another format: counters begin anew")

    def is_settled(self, process: MetricsProcess | None, successor: int) -> bool:
        """Whether :meth:`serve` would change nothing: the process, if there is to be one, runs, and no other master
        comes or goes.
        """
        return self._old_store < 0 and not successor and (process is None or process.pid > 0)

    def serve(self, process: MetricsProcess, directory: RunDirectory, successor: int) -> None:
        """Keep the metrics process running, or stopped while another master serves.

        ``successor`` is the pid of the master that this one has executed, 0 for none.
        """
        process.reap()
        if self._waits():
            return
        # The directory may be gone.
        with contextlib.suppress(OSError):
            if successor and self._is_noted(directory.fd, successor):
                self._successor = successor
                process.stop()
                os.unlink(_NOTE, dir_fd=directory.fd)
        if not successor or successor != self._successor:
            process.ensure()

    def _waits(self) -> bool:
        """Return whether the old master still serves."""
        if self._old_store < 0:
            return False
        if self._is_noted(self._old_store, os.getpid()) and time.monotonic() < self._until:
            return True
        os.close(self._old_store)
        self._old_store = -1
        return False

    @staticmethod
    def _is_noted(store_fd: int, pid: int) -> bool:
        return read_regular(store_fd, _NOTE, _LIMIT) == str(pid).encode()


def _write_note(store_fd: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(_NOTE, flags, 0o600, dir_fd=store_fd)
    try:
        os.write(fd, str(os.getpid()).encode())
    finally:
        os.close(fd)
