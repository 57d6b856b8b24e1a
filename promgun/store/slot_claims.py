"""The slots that a process claims: its own, and those of the workers that a master has forked and not yet reaped."""

from __future__ import annotations

import os
import weakref
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from promgun.store.ownership import has_owner, owner_ended_at
from promgun.store.run_directory import RunDirectory
from promgun.store.slot_lock import SlotLock, claim_slot
from promgun.store.worker_table import WorkerRow, WorkerTable


class SlotClaims:
    """The claims of one process. A forked child keeps the claim that was taken for it, and no other."""

    def __init__(self) -> None:
        self._own: SlotLock | None = None
        self._next: SlotLock | None = None
        self._all: weakref.WeakSet[SlotLock] = weakref.WeakSet()

    @property
    def number(self) -> int | None:
        """The number of this process's own slot, ``None`` without one."""
        return self._own.number if self._own is not None else None

    @property
    def numbers(self) -> frozenset[int]:
        """The slots of this process's children, until they are forgotten."""
        return frozenset(lock.number for lock in self._all)

    def own(self, directory: RunDirectory) -> SlotLock:
        """Return this process's own slot, taking one if need be; raises ``OSError``."""
        if self._own is None:
            lock = _claim(directory)
            lock.owner_ended_at = owner_ended_at(directory, lock.number, WorkerRow())
            self._own = lock
        return self._own

    def reserve(self, directory: RunDirectory, table: WorkerTable) -> SlotLock | None:
        """Take a slot for the child that is forked next; ``None`` while there is none.

        ``table`` is what this master knows of the slots' last owners.
        """
        try:
            # Claimed slots are excluded by number: a worker's lock is its own, and is gone when it ends, but its slot
            # is not given away before its board was read.
            lock = _claim(directory, self.numbers)
        except OSError:
            # The child will try for itself, and count values that it cannot store.
            return None
        lock.owner_ended_at = owner_ended_at(directory, lock.number, table[lock.number])
        self._all.add(lock)
        self._next = lock
        return lock

    @contextmanager
    def withheld(self) -> Iterator[None]:
        """Give the reserved slot to no child that is forked in the meantime."""
        reserved, self._next = self._next, None
        try:
            yield
        finally:
            # A child that was forked meanwhile, and returned from the hook as well, has no claims.
            if reserved in self._all:
                self._next = reserved

    def forget(self, locks: Iterable[SlotLock]) -> None:
        """Give up claims made for children that are gone, also while a hook keeps the objects of their workers."""
        for lock in locks:
            self._all.discard(lock)
            lock.release()

    def after_fork_in_parent(self) -> None:
        """Close the lock of the reserved slot, which the child holds now: a master has no descriptor for each worker,
        and no younger worker inherits it.
        """
        if self._next is not None:
            self._next.release()
        self._next = None

    def after_fork_in_child(self) -> bool:
        """Keep the slot reserved for this process and release all others; return whether there was any claim."""
        mine, self._next = self._next, None
        for inherited in [*self._all, *filter(None, [self._own])]:
            if inherited is not mine:
                inherited.release()
        self._all.clear()
        self._own = mine
        return mine is not None


def _claim(directory: RunDirectory, taken: Collection[int] = ()) -> SlotLock:
    passed_over = set(taken)
    slots_fd = directory.open_slots()
    try:
        while True:
            lock = claim_slot(slots_fd, directory.owner, passed_over)
            if not has_owner(directory, slots_fd, lock.number):
                return lock
            lock.release()
            passed_over.add(lock.number)
    finally:
        os.close(slots_fd)
