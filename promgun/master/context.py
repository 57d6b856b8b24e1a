"""What the launcher hands to the application and its arbiter."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from promgun.config.listeners import close_and_unlink
from promgun.instances.registration import Registration
from promgun.store.directory import StoreDirectory
from promgun.store.process import ProcessStore


@dataclass(slots=True)
class RunContext:
    """What the launcher made for the arbiter: the store, and the metrics listeners bound before any fork."""

    store: ProcessStore
    directory: StoreDirectory
    listeners: list[socket.socket] = field(default_factory=list)
    metrics_bind: tuple[str, ...] = ()
    registration: Registration | None = None

    def close(self) -> None:
        """Leave nothing behind: run entry, sockets, directory. Workers pass here too and are told apart by pid."""
        if not self.directory.is_mine:
            return
        if self.registration is not None:
            self.registration.withdraw()
        for listener in self.listeners:
            close_and_unlink(listener)
        self.directory.close()
