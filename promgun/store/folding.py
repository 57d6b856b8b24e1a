"""Merges ended processes' value files into the folded file of their kind, so that their number stays bounded.

The order makes this exact even if the process that does it is killed: the new folded file is written under another
name, one rename commits it together with the names of the merged files, and only then are those unlinked. Any running
process of the workers' user may do it, one at a time: it takes a lock on ``slots`` itself, and gives up if another has
it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from promgun.store.client_claim import own_clients
from promgun.store.client_links import link_file
from promgun.store.folded_file import Folded, Origin, encode_folded, is_kept, parse_values, taken_in
from promgun.store.folded_reader import FoldedFiles, Vanished, folded_name
from promgun.store.foreign_files import DeadFile, ForeignFile, find_foreign, hold_if_dead
from promgun.store.foreign_reader import ForeignReader
from promgun.store.run_directory import VERSION, RunDirectory
from promgun.system.safe_open import open_regular

#: The most files held at a time, and the most seconds of one call, because it also runs in a worker's loop.
_MOST_HELD = 16
_SECONDS = 0.1
#: A marker file, made once the left-overs of an earlier run are removed from the client directories.
_BEGUN = "folding-begun"


@dataclass(slots=True, eq=False, repr=False)
class Folding:
    """What one call did.

    ``taken`` files of ended processes were merged, ``dropped`` ones were not because such gauges end with their
    process, ``left_overs`` of an earlier run were removed. ``restored`` are kinds whose folded file was written again,
    ``series_left_out`` counts series that did not fit. ``busy``: another process does this at the moment. ``more``: one
    call was not enough.
    """

    taken: int = 0
    dropped: int = 0
    left_overs: int = 0
    vanished: int = 0
    series_left_out: int = 0
    restored: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    busy: bool = False
    more: bool = False


def fold_dead(run: RunDirectory, reader: ForeignReader | None = None, *, seconds: float = _SECONDS) -> Folding:
    """Merge the files of ended processes; called about once a second and before the first page. Never raises.

    ``reader`` is the process's own :class:`ForeignReader`, if it has one: the last values that it knows of removed or
    damaged files are saved as well.
    """
    result = Folding()
    if not run.is_open_to_me:
        return result
    try:
        slots_fd = run.open_slots()
    except OSError as error:
        result.errors.append(str(error))
        return result
    try:
        fcntl.flock(slots_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        result.busy = True
        os.close(slots_fd)
        return result
    try:
        _Fold(run, slots_fd, reader, result, time.monotonic() + seconds).run_all()
    except OSError as error:
        result.errors.append(str(error))
    finally:
        # A child forked meanwhile has the descriptor too, so closing it would not release the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(slots_fd, fcntl.LOCK_UN)
        os.close(slots_fd)
    return result


def has_begun(run: RunDirectory) -> bool:
    """Whether a process of this run has removed what earlier runs left."""
    return os.path.lexists(run.slots / _BEGUN)


class _Fold:
    """One call, under the lock."""

    def __init__(
        self, run: RunDirectory, slots_fd: int, reader: ForeignReader | None, result: Folding, deadline: float
    ) -> None:
        self._run = run
        self._slots_fd = slots_fd
        self._reader = reader
        self._folded_files = FoldedFiles() if reader is None else reader.files
        self._result = result
        self._deadline = deadline

    def run_all(self) -> None:
        """Do everything; raises ``OSError``."""
        files = find_foreign(own_clients(self._run))
        if not self._has_begun():
            files = self._remove_left_overs(files)
            os.close(
                os.open(_BEGUN, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._slots_fd)
            )
        vanished = self._reader.vanished if self._reader is not None else {}
        folded = self._reader.folded.keys() if self._reader is not None else set()
        for kind in sorted({file.kind for file in files} | vanished.keys() | folded):
            self._try_kind(kind, [file for file in files if file.kind == kind], vanished.get(kind, []))

    def _try_kind(self, kind: str, files: list[ForeignFile], vanished: list[Vanished]) -> None:
        try:
            self._fold_kind(kind, files, vanished)
        except OSError as error:
            self._result.errors.append(f"{folded_name(kind)}: {error.strerror}")

    def _has_begun(self) -> bool:
        try:
            os.close(open_regular(self._slots_fd, _BEGUN))
        except FileNotFoundError:
            return False
        return True

    def _remove_left_overs(self, files: list[ForeignFile]) -> list[ForeignFile]:
        """Remove files that have no writer and were last changed before the run began; return the others."""
        began = (
            os.stat(VERSION, dir_fd=self._run.fd).st_mtime_ns
            if self._run.fd >= 0
            else ((self._run.path / VERSION).stat().st_mtime_ns)
        )
        kept = []
        for file in files:
            dead = hold_if_dead(file) if file.origin.changed < began else None
            if dead is None:
                kept.append(file)
                continue
            self._result.left_overs += dead.remove()
            dead.close()
        return kept

    def _fold_kind(self, kind: str, files: list[ForeignFile], vanished: list[Vanished]) -> None:
        if not is_kept(kind):
            for dead in _held(files):
                self._result.dropped += dead.remove()
                dead.close()
            return
        base = None if self._reader is None else self._base(kind)
        present = [file.origin for file in files]
        gone = {one.origin: one.entries for one in vanished if base is not None and not one.is_in(base)}
        if base is not None and gone:
            base = self._commit(kind, taken_in(kind, base, gone, present))
            self._link(kind)
            self._result.vanished += len(gone)
        for start in range(0, len(files), _MOST_HELD):
            if start and time.monotonic() > self._deadline:
                self._result.more = True
                break
            held = list(_held(files[start : start + _MOST_HELD]))
            try:
                if held:
                    base = self._take(kind, self._base(kind) if base is None else base, held, present)
            finally:
                for dead in held:
                    dead.close()

    def _take(self, kind: str, base: Folded, held: list[DeadFile], present: list[Origin]) -> Folded:
        """Commit the content of held files, then unlink them; return the new folded file."""
        parts = {dead.origin: parse_values(kind, dead.read()).entries for dead in held}
        named = {origin for origin in parts if origin in base.origins}
        wanted: set[Origin] = set()
        folded = base
        while True:
            fresh = {origin: entries for origin, entries in parts.items() if origin not in named | wanted}
            if any(fresh.values()) or folded is not base:
                folded = self._commit(kind, taken_in(kind, _after(base, folded), fresh, present))
            # A new process with the dead one's pid opens the file: the file stays, and is counted where it is.
            late = {dead.origin for dead in held if dead.is_wanted} - wanted - named
            if not late:
                break
            wanted |= late
        for dead in held:
            if dead.origin not in wanted and dead.remove():
                self._result.taken += dead.origin not in named
        self._link(kind)
        return folded

    def _link(self, kind: str) -> None:
        link_file(self._run, self._run.slots / folded_name(kind), "folded", kind)

    def _base(self, kind: str) -> Folded:
        """Return what was merged so far: from the file, or, if it is damaged, from this process's memory."""
        found = self._folded_files.read(self._slots_fd, kind)
        remembered = self._reader.folded.get(kind) if self._reader is not None else None
        if remembered is not None and (found is None or found.generation < remembered.generation):
            self._result.restored.append(kind)
            return self._commit(kind, remembered)
        return found or Folded()

    def _commit(self, kind: str, folded: Folded) -> Folded:
        """Replace a folded file in one step; raises ``OSError`` and then leaves the old one."""
        content, left_out = encode_folded(folded)
        self._result.series_left_out += left_out
        temporary = f".new-{folded_name(kind)}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=self._slots_fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self._slots_fd)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.rename(temporary, folded_name(kind), src_dir_fd=self._slots_fd, dst_dir_fd=self._slots_fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._slots_fd)
            raise
        finally:
            os.close(fd)
        return folded


def _held(files: Iterable[ForeignFile]) -> Iterator[DeadFile]:
    for file in files:
        dead = hold_if_dead(file)
        if dead is not None:
            yield dead


def _after(base: Folded, last: Folded) -> Folded:
    """Return ``base`` with the generation of the file as it is now, so that readers notice the change."""
    return Folded(max(base.generation, last.generation), base.since, base.origins, base.entries)
