"""The folded files of a run as anybody reads them, and whether a file that is gone was taken into one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from promgun.store.client_links import KINDS
from promgun.store.folded_file import FOLDED_SIZE, Folded, Origin, Pair, parse_folded
from promgun.store.run_directory import RunDirectory
from promgun.system.safe_open import open_regular

_FOLDED = "folded."
_FOLDED_NAME = re.compile(rf"folded\.({KINDS})")
#: Names of origins stand behind the series.
_MOST_FOLDED_BYTES = FOLDED_SIZE + (2 << 20)


def folded_name(kind: str) -> str:
    """Return the name of the folded file of a kind."""
    return f"{_FOLDED}{kind}"


@dataclass(frozen=True, slots=True)
class Vanished:
    """The last values of a file that somebody removed; a folded file of ``generation`` did not name it."""

    origin: Origin
    entries: Mapping[str, Pair]
    generation: int

    def is_in(self, folded: Folded) -> bool:
        """Whether it was taken in since, or so much was since that nobody can tell: nothing is counted twice."""
        return was_taken(self.origin, self.generation, folded)


def was_taken(origin: Origin, generation: int, folded: Folded) -> bool:
    """Whether a file that was not named in a ``generation`` was taken in since; true when nobody can tell."""
    if folded.since > generation + 1:
        return True
    return any(named[:3] == origin[:3] and taken > generation for named, taken in folded.origins.items())


class FoldedFiles:
    """Reads the folded files of a run; what did not change is not parsed again."""

    def __init__(self) -> None:
        self._parsed: dict[str, tuple[tuple[int, ...], Folded | None]] = {}

    def read(self, slots_fd: int, kind: str) -> Folded | None:
        """Return what the folded file of a kind says: ``None`` for a damaged one, nothing for one that is not there."""
        try:
            fd = open_regular(slots_fd, folded_name(kind))
        except FileNotFoundError:
            return Folded()
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
            known = self._parsed.get(kind)
            if known is None or known[0] != identity:
                known = self._parsed[kind] = identity, parse_folded(kind, os.pread(fd, _MOST_FOLDED_BYTES, 0))
            return known[1]
        except OSError:
            return None
        finally:
            os.close(fd)

    def read_all(self, run: RunDirectory) -> dict[str, Folded | None]:
        """Return what each folded file says, by kind; never raises."""
        try:
            slots_fd = run.open_slots()
        except OSError:
            return {}
        try:
            matches = (_FOLDED_NAME.fullmatch(name) for name in os.listdir(slots_fd))
            return {kind: self.read(slots_fd, kind) for kind in sorted(match[1] for match in matches if match)}
        except OSError:
            return {}
        finally:
            os.close(slots_fd)
