"""Repairs the files of a slot for its owner at each tick: files that somebody removed, replaced or cut."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from promgun.store.files import ValueFile
from promgun.store.healing import Harm, Healing
from promgun.store.slot_file import SlotFile


@dataclass(frozen=True, slots=True, repr=False)
class Guarded:
    """What was found and done: paths of ``healed`` files, and ``errors`` of files to be tried again.

    ``lost_rows``: the slot's own file had been cut, so the owner must occupy its board again and ask anew for the
    places of its rows.
    """

    healed: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    lost_rows: bool = False

    @property
    def warning(self) -> str:
        """The text to log once for the operator; empty when nothing happened."""
        if not self.healed and not self.errors:
            return ""
        if self.errors:
            return f"A file of the metrics store was removed, replaced or cut, and cannot be restored: {self.errors[0]}"
        names = ", ".join(os.path.basename(path) for path in self.healed)
        state = "values behind a cut are lost" if self.lost_rows else "no value is lost"
        return (
            f"Files of the metrics store in {os.path.dirname(self.healed[0])} were removed, replaced or cut while in "
            f"use ({names}); they have been restored, {state}. Find out who deletes files there"
        )


def heal_files(slot_file: SlotFile, value_files: Iterable[ValueFile], heal_lock: Callable[[], bool]) -> Guarded:
    """Repair all files of a slot, under the store's lock; never raises. Costs one ``lstat`` a file when all is well.

    ``heal_lock`` does the same for the slot's lock file: see ``SlotLock.heal``.
    """
    results = [(slot_file.path, slot_file.heal())]
    results += [(str(file.path), file.heal()) for file in value_files]
    healed = tuple(path for path, healing in results if _is_healed(healing))
    errors = tuple(f"{path}: {healing.error}" for path, healing in results if healing.error)
    own = results[0][1]
    lock_file = f"{slot_file.path}.lock"
    try:
        if heal_lock():
            healed = (*healed, lock_file)
    except OSError as error:
        errors = (*errors, f"{lock_file}: {error}")
    return Guarded(healed, errors, own.harm is Harm.SHRUNK and not own.error)


def _is_healed(healing: Healing) -> bool:
    return healing.harm is not Harm.NONE and not healing.error
