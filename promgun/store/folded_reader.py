"""Reads the folded files of a run, and tells whether a file that is gone was merged into one of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from promgun.store.client_links import KINDS
from promgun.store.folded_file import FOLDED_SIZE, Folded, Origin, Pair, parse_folded
from promgun.store.folder_listing import Entries, FolderListing
from promgun.store.run_directory import RunDirectory
from promgun.system.safe_open import open_regular

_FOLDED = "folded."
_FOLDED_NAME = re.compile(rf"folded\.({KINDS})")
#: The list of merged files stands behind the series.
_MOST_FOLDED_BYTES = FOLDED_SIZE + (2 << 20)


def folded_name(kind: str) -> str:
    """Return the name of the folded file of a kind."""
    return f"{_FOLDED}{kind}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Vanished:
    """The last values of a file that is gone; ``generation`` is that of the folded file that did not name it yet."""

    origin: Origin
    entries: Mapping[str, Pair]
    generation: int

    def is_in(self, folded: Folded) -> bool:
        """Whether the file was merged since; true when nobody can tell any more, so that nothing is counted twice."""
        return was_taken(self.origin, self.generation, folded)


def was_taken(origin: Origin, generation: int, folded: Folded) -> bool:
    """Whether a file that ``generation`` did not name was merged since; true when nobody can tell any more."""
    if folded.since > generation + 1:
        return True
    return any(named[:3] == origin[:3] and taken > generation for named, taken in folded.origins.items())


class FoldedFiles:
    """Reads the folded files of a run; unchanged files are not parsed again."""

    def __init__(self) -> None:
        self._parsed: dict[str, tuple[tuple[int, ...], Folded | None]] = {}
        self._listing = FolderListing()
        self._entries: Entries | None = None
        self._kinds: list[str] = []

    def read(self, slots_fd: int, kind: str) -> Folded | None:
        """Return the content of a kind's folded file: ``None`` if it is damaged, an empty one if there is no file."""
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
        """Return the content of each folded file, by kind; never raises."""
        try:
            slots_fd = run.open_slots()
        except OSError:
            return {}
        try:
            entries = self._listing.read(slots_fd)
            if entries is not self._entries:
                matches = [_FOLDED_NAME.fullmatch(name) for name, _ in entries]
                self._kinds = sorted(match[1] for match in matches if match)
                self._entries = entries
            return {kind: self.read(slots_fd, kind) for kind in self._kinds}
        except OSError:
            return {}
        finally:
            os.close(slots_fd)
