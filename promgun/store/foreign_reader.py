"""Reads the values of processes that run without promgun, living and ended, as one value file a kind.

A living process's file is read where it lies; an ended one's was merged into the folded file, which names it. The
folded file is read before and after the others. A file that somebody else removed keeps its last values on the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from promgun.store import format as fmt
from promgun.store.client_claim import own_clients
from promgun.store.folded_file import (
    Folded,
    Pair,
    Values,
    encode_values,
    is_kept,
    merge,
    parse_values,
)
from promgun.store.folded_reader import FoldedFiles, Vanished, folded_name, was_taken
from promgun.store.foreign_files import MOST_BYTES, MOST_FILES, ForeignFile, find_foreign, read_foreign
from promgun.store.run_directory import RunDirectory

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ForeignContent:
    """All values of foreign processes of one kind (``counter``, ``gauge_max`` …), as the content of a value file.

    It is read like the file of one more slot, which is called ``child``.
    """

    kind: str
    data: bytes
    name: str = "child"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ForeignReading:
    """One reading.

    ``contents`` are by kind. ``files`` of living processes were read, ``size`` bytes together; ``left_off`` files are
    beyond the limit of one reading. ``corrupt`` counts damage found since the reader was made, ``complaints`` describe
    it.
    """

    contents: tuple[ForeignContent, ...] = ()
    files: int = 0
    size: int = 0
    left_off: int = 0
    corrupt: int = 0
    complaints: tuple[str, ...] = ()


@dataclass(slots=True, eq=False, repr=False)
class _Known:
    """The last content of a file, and the generation of the folded file that did not name it then."""

    file: ForeignFile
    generation: int
    data: bytes = b""
    values: Values = field(default_factory=lambda: Values({}))
    damage: str = ""


_FileKey = tuple[str, int, int]


class ForeignReader:
    """Reads the client directories of a run repeatedly, in a process of the workers' user.

    Pass it to :func:`promgun.store.folding.fold_dead`, which saves the last known values of removed files.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.files = FoldedFiles()
        #: the last content of each kind's folded file
        self.folded: dict[str, Folded] = {}
        self._known: dict[_FileKey, _Known] = {}
        self._vanished: dict[_FileKey, _Known] = {}
        self._damaged: set[str] = set()
        self._corrupt = 0
        self._complaints: list[str] = []
        self._last: dict[str, tuple[list[Mapping[str, Pair]], ForeignContent]] = {}

    @property
    def vanished(self) -> Mapping[str, list[Vanished]]:
        """The last values of files that somebody removed, by kind: they are on the page but in no file."""
        found: dict[str, list[Vanished]] = {}
        for known in self._vanished.values():
            vanished = Vanished(known.file.origin, known.values.entries, known.generation)
            found.setdefault(known.file.kind, []).append(vanished)
        return found

    def read(self) -> ForeignReading:
        """Read everything; never raises because of a file's content."""
        self._complaints = []
        if not self.run.is_open_to_me:
            return ForeignReading()
        read = 0, 0, 0
        for _ in range(_ATTEMPTS):
            before = self.files.read_all(self.run)
            self._take_in_folded(before)
            read = self._read_living()
            if _generations(self.files.read_all(self.run)) == _generations(before):
                break
        contents = tuple(filter(None, map(self._content, self._kinds())))
        return ForeignReading(contents, *read, self._corrupt, tuple(self._complaints))

    def _take_in_folded(self, found: Mapping[str, Folded | None]) -> None:
        for kind, folded in found.items():
            if folded is None:
                if kind not in self._damaged:
                    self._complain(f"{folded_name(kind)}: damaged")
                self._damaged.add(kind)
                continue
            self._damaged.discard(kind)
            if folded.generation >= self.folded.get(kind, Folded()).generation:
                self.folded[kind] = folded
        # A folded file that is gone or damaged keeps its last content here, and the next fold writes it again.

    def _read_living(self) -> tuple[int, int, int]:
        """Read all files that were not merged; return their number, their size, and how many were left off."""
        present: dict[_FileKey, ForeignFile] = {_key(file): file for file in find_foreign(own_clients(self.run))}
        # Files already on the page come first, so that a new file never displaces them.
        wanted = sorted(present.items(), key=lambda item: item[0] not in self._known)
        files = size = left_off = 0
        for key, file in wanted:
            folded = self.folded.get(file.kind, Folded())
            if file.origin in folded.origins:
                self._known.pop(key, None)
                continue
            known = self._read_file(key, file) if files < MOST_FILES and size < MOST_BYTES else None
            if known is not None and size + len(known.data) <= MOST_BYTES:
                self._known[key] = known
                known.generation = folded.generation
                files += 1
                size += len(known.data)
            else:
                left_off += 1
        self._look_after_gone(present)
        return files, size, left_off

    def _read_file(self, key: _FileKey, file: ForeignFile) -> _Known | None:
        known = self._known.get(key)
        try:
            data = read_foreign(file)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and known is None:
                self._note(_Known(file, 0), error.strerror or "unreadable")
            return known
        if known is None:
            known = self._vanished.pop(key) if key in self._vanished else _Known(file, 0)
        known.file = file
        if data == known.data:
            return known
        damage = _damage(data)
        if damage and known.values.entries:
            # cut or overwritten while its writer lives: keep its last values
            self._note(known, damage)
            return known
        known.data = data
        known.values = parse_values(file.kind, data) if any(data) else Values({})
        self._note(known, damage or ("entries that cannot be right" if known.values.bad else ""))
        return known

    def _look_after_gone(self, present: Mapping[_FileKey, ForeignFile]) -> None:
        """Sort files that are gone into those that were merged and those that somebody removed."""
        for key in self._known.keys() - present.keys():
            known = self._known.pop(key)
            if is_kept(known.file.kind) and known.values.entries:
                self._vanished[key] = known
        for key, known in list(self._vanished.items()):
            folded = self.folded.get(known.file.kind, Folded())
            if was_taken(known.file.origin, known.generation, folded):
                del self._vanished[key]
            else:
                known.generation = folded.generation

    def _kinds(self) -> list[str]:
        kinds = {known.file.kind for known in [*self._known.values(), *self._vanished.values()]}
        return sorted(kinds | self.folded.keys())

    def _content(self, kind: str) -> ForeignContent | None:
        parts: list[Mapping[str, Pair]] = []
        if kind in self.folded:
            parts.append(self.folded[kind].entries)
        for source in (self._vanished, self._known):
            parts += [source[key].values.entries for key in sorted(source) if source[key].file.kind == kind]
        before = self._last.get(kind)
        if before is not None and len(before[0]) == len(parts) and all(map(_is, before[0], parts)):
            return before[1]
        merged = merge(kind, parts)
        if not merged:
            return None
        if not kind.endswith("mostrecent"):
            merged = {key: (value, 0.0) for key, (value, _) in merged.items()}
        data, left_out = encode_values(merged, room=MOST_BYTES)
        if left_out:
            self._complain(f"{kind}: {left_out} series of child processes do not fit")
        content = ForeignContent(kind, data)
        self._last[kind] = parts, content
        return content

    def _note(self, known: _Known, damage: str) -> None:
        if damage and known.damage != damage:
            self._complain(f"{known.file.path}: {damage}")
        known.damage = damage

    def _complain(self, text: str) -> None:
        self._corrupt += 1
        self._complaints.append(text)


def _is(one: object, other: object) -> bool:
    return one is other


def _key(file: ForeignFile) -> _FileKey:
    return file.origin.name, file.origin.device, file.origin.inode


def _damage(data: bytes) -> str:
    """Return what is wrong with a living process's file; a file of zeros, or an empty one, has just been begun."""
    return fmt.header_error(fmt.read_used(data), len(data)) if any(data) else ""


def _generations(folded: Mapping[str, Folded | None]) -> dict[str, int]:
    return {kind: -1 if one is None else one.generation for kind, one in folded.items()}
