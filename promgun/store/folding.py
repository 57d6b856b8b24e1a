"""Ended processes' value files are taken into the folded file of their kind, so their number stays bounded for ever.

The order makes it exact whenever the process that does it is killed: the new folded file is written under another name,
one rename commits it with the names of what it took in, and only then are those unlinked. Whoever is the workers' user
and awake may do it, one at a time: a lock on ``slots`` itself decides, which nobody waits for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from promgun.store.client_links import link_into, link_name
from promgun.store.folded_file import Folded, Origin, encode_folded, is_kept, parse_values, taken_in
from promgun.store.folded_reader import FoldedFiles, Vanished, folded_name
from promgun.store.foreign_files import DeadFile, ForeignFile, find_foreign, hold_if_dead
from promgun.store.foreign_reader import ForeignReader
from promgun.store.run_directory import VERSION, RunDirectory
from promgun.system.safe_open import open_regular

#: Files that are held at a time, and for how long one call goes on: it also runs in a worker's loop.
_MOST_HELD = 16
_SECONDS = 0.1
#: Made once what an earlier run left in the client directories is removed.
_BEGUN = "folding-begun"


@dataclass(slots=True)
class Folding:
    """What was done: files of ended processes ``taken`` in, ``dropped`` (gauges that go with their process), removed as
    ``left_overs`` of an earlier run; kinds whose folded file was ``restored``; series that did not fit; ``errors``.

    ``busy``: another process does it at this moment. ``more``: there is more to do than one call does.
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
    """Take in what ended processes left, about once a second and once before the first page; never raises.

    ``reader`` is the one of this process, if it has one: what it remembers of files that were removed or damaged is
    written down too.
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
        # A child that was forked meanwhile has the descriptor too.
        with contextlib.suppress(OSError):
            fcntl.flock(slots_fd, fcntl.LOCK_UN)
        os.close(slots_fd)
    return result


def has_begun(run: RunDirectory) -> bool:
    """Whether a process of this run has looked after what earlier runs left."""
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
        files = find_foreign(self._run.clients)
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
        """Remove what nobody writes and was last changed before the run began; return the others."""
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
        """Commit what is in held files, then unlink them; return what the folded file says now."""
        parts = {dead.origin: parse_values(kind, dead.read()).entries for dead in held}
        named = {origin for origin in parts if origin in base.origins}
        wanted: set[Origin] = set()
        folded = base
        while True:
            fresh = {origin: entries for origin, entries in parts.items() if origin not in named | wanted}
            if any(fresh.values()) or folded is not base:
                folded = self._commit(kind, taken_in(kind, _after(base, folded), fresh, present))
            # A process that has the pid of the dead one opens the file: it lives on, and is counted where it is.
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
        for client in self._run.clients:
            link_into(client, self._run.slots / folded_name(kind), link_name("folded", kind))

    def _base(self, kind: str) -> Folded:
        """Return what was taken in so far: what stands in the file, or what this process remembers of it."""
        found = self._folded_files.read(self._slots_fd, kind)
        remembered = self._reader.folded.get(kind) if self._reader is not None else None
        if remembered is not None and (found is None or found.generation < remembered.generation):
            self._result.restored.append(kind)
            return self._commit(kind, remembered)
        return found or Folded()

    def _commit(self, kind: str, folded: Folded) -> Folded:
        """Put a folded file in the place of the last in one step; raises ``OSError`` and leaves the last."""
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
    """Return ``base`` with the generation of what stands in the file by now, so that readers see a change."""
    return Folded(max(base.generation, last.generation), base.since, base.origins, base.entries)
