"""What an old master leaves to the new one across SIGUSR2, through the environment."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "PROMGUN_HANDOVER"
#: Set by Gunicorn's ``Arbiter.reexec`` for the master that it executes.
GUNICORN_PID = "GUNICORN_PID"


@dataclass(frozen=True, slots=True)
class Handover:
    """The store to go on with and the metrics listeners, by descriptor."""

    store: str
    private: bool
    listeners: tuple[int, ...]

    @property
    def path(self) -> Path:
        """The store's directory."""
        return Path(self.store)

    def to_environment(self, environment: MutableMapping[str, str]) -> None:
        """Write it where the new master will look."""
        environment[VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Handover | None:
        """Take it out of the environment; ``None`` when no master executed us."""
        text = environment.pop(VARIABLE, "")
        if not text or GUNICORN_PID not in environment:
            return None
        raw = json.loads(text)
        return cls(raw["store"], raw["private"], tuple(raw["listeners"]))
