"""What an old master hands to the new one across SIGUSR2, through the environment: store and metrics listeners."""

from __future__ import annotations

import json
import socket
from collections.abc import MutableMapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from promgun.config.listeners import NO_LISTENERS, Listener, Listeners
from promgun.config.metrics_addresses import SocketAddress
from promgun.config.run_settings import GUNICORN_PID, HANDOVER
from promgun.store.run_directory import FORMAT


class Handover(NamedTuple):
    """The store to go on with, and the metrics listeners; ``activated`` ones came from systemd."""

    store: Path
    private: bool
    #: what the old master calls the format of its store
    format: str
    #: device and inode of the store's directory
    identity: tuple[int, int] = (0, 0)
    second_client: Path | None = None
    listeners: Listeners = NO_LISTENERS
    activated: bool = False

    @property
    def is_readable(self) -> bool:
        """Whether this version of promgun can go on with the store."""
        return self.format == FORMAT

    def to_environment(self, environment: MutableMapping[str, str]) -> None:
        """Write it where the new master will look. One list has the listeners' descriptors, another, in the same order,
        the addresses they were asked for.
        """
        environment[HANDOVER] = json.dumps(
            {
                "store": str(self.store),
                "private": self.private,
                "identity": self.identity,
                "second_client": None if self.second_client is None else str(self.second_client),
                "format": self.format,
                "listeners": [listener.fileno() for listener in self.listeners.values()],
                "addresses": [place.sockaddr for place in self.listeners],
                "activated": self.activated,
            }
        )

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Handover | None:
        """Take it out of the environment, and make its descriptors sockets that no child inherits; ``None`` when no
        master executed us.
        """
        text = environment.pop(HANDOVER, "")
        if not text or GUNICORN_PID not in environment:
            return None
        raw = json.loads(text)
        sockets = [Listener(fileno=descriptor) for descriptor in raw["listeners"]]
        for listener in sockets:
            listener.set_inheritable(False)
            listener.settimeout(0)
        asked = [tuple(each) if isinstance(each, list) else each for each in raw.get("addresses", ())]
        listeners = {
            SocketAddress((listener.family, sockaddr)): listener
            for listener, sockaddr in zip(sockets, asked or map(_name_of, sockets), strict=True)
        }
        identity, second = raw.get("identity", (0, 0)), raw.get("second_client")
        return cls(
            store=Path(raw["store"]),
            private=raw["private"],
            format=raw.get("format", ""),
            identity=(identity[0], identity[1]),
            second_client=None if second is None else Path(second),
            listeners=MappingProxyType(listeners),
            activated=raw.get("activated", False),
        )


def _name_of(listener: socket.socket) -> Any:
    """Return the address that a listener has, where an older master did not say which it was asked for."""
    return listener.getsockname()
