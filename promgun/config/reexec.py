"""What an old master hands to the new one across SIGUSR2, through the environment: store and metrics listeners."""

from __future__ import annotations

import json
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from promgun.config.listeners import NO_LISTENERS, Listeners
from promgun.config.metrics_addresses import SocketAddress

VARIABLE = "PROMGUN_HANDOVER"
#: Set by Gunicorn's ``Arbiter.reexec`` for the master that it executes.
GUNICORN_PID = "GUNICORN_PID"


@dataclass(frozen=True, slots=True)
class Handover:
    """The store to go on with, and the metrics listeners; ``activated`` ones came from systemd."""

    store: Path
    private: bool
    listeners: Listeners = field(default_factory=lambda: NO_LISTENERS)
    activated: bool = False

    def to_environment(self, environment: MutableMapping[str, str]) -> None:
        """Write it where the new master will look: each listener by its descriptor, and the address it was asked for
        at the same place of a second list.
        """
        environment[VARIABLE] = json.dumps(
            {
                "store": str(self.store),
                "private": self.private,
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
        text = environment.pop(VARIABLE, "")
        if not text or GUNICORN_PID not in environment:
            return None
        raw = json.loads(text)
        sockets = [socket.socket(fileno=descriptor) for descriptor in raw["listeners"]]
        for listener in sockets:
            listener.set_inheritable(False)
            listener.settimeout(0)
        asked = [tuple(each) if isinstance(each, list) else each for each in raw["addresses"]]
        listeners = {
            SocketAddress(listener.family, sockaddr): listener
            for listener, sockaddr in zip(sockets, asked, strict=True)
        }
        return cls(Path(raw["store"]), raw["private"], MappingProxyType(listeners), raw["activated"])
