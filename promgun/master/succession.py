"""Who serves the metrics while two masters run whose stores have different formats (SIGUSR2 to another version).

Both have the metrics listeners, and their counters have nothing to do with each other: pages of the one and the other
in turns would look like counters that sink. The new master leaves its pid in the old one's store; the old one then
stops its metrics process and takes the note away, and only then does the new one serve. When the new master ends first,
the old one serves again.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from promgun.config.reexec import Handover
from promgun.endpoint.supervisor import MetricsProcess
from promgun.store.run_directory import DirectoryIdentity, RunDirectory
from promgun.system.remove_tree import open_folder
from promgun.system.safe_open import read_regular

_NOTE = "superseded"
_LIMIT = 32
#: Seconds for which an old master is waited for: one that knows nothing of the note goes on serving.
_PATIENCE = 5.0


class Succession:
    """Starts and stops a master's metrics process by whose turn it is; for the master's main loop only."""

    def __init__(self) -> None:
        self._old_store = -1
        self._until = 0.0
        self._successor = 0

    def supersede(self, handover: Handover) -> None:
        """Ask the old master to step aside: its store is one that this version cannot go on with. Never raises."""
        try:
            store_fd = open_folder(handover.store)
        except OSError:
            return
        with contextlib.suppress(OSError):
            if DirectoryIdentity.of(store_fd) == DirectoryIdentity(*handover.identity):
                _write_note(store_fd)
                self._old_store, self._until = store_fd, time.monotonic() + _PATIENCE
        if self._old_store < 0:
            os.close(store_fd)

    def announce(self, log: Any) -> None:
        """Say in the new master what its users will see."""
        if self._old_store >= 0:
            log.warning("The old master's store has another format: counters begin anew")

    def serve(self, process: MetricsProcess, directory: RunDirectory, successor: int) -> None:
        """Keep the metrics process running, or stopped while another master serves; ``successor`` is the master that
        this one has executed, 0 for none.
        """
        process.reap()
        if self._waits():
            return
        if successor and self._is_noted(directory.fd, successor):
            self._successor = successor
            process.stop()
            with contextlib.suppress(OSError):
                os.unlink(_NOTE, dir_fd=directory.fd)
        if not successor or successor != self._successor:
            process.ensure()

    def _waits(self) -> bool:
        """Tell whether the old master still serves."""
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
