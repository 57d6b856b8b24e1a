"""Upkeep of the store, by a process that runs as the workers' user: about once a second while it serves requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import promgun.store.row_scan  # noqa: F401 - a slot's file that is healed is indexed again
from promgun.store.client_settings import changed_settings, is_first_of_run
from promgun.store.client_upkeep import ClientLinks
from promgun.store.file_guard import heal_files
from promgun.store.files import ValueFile
from promgun.store.folder_states import FolderStates
from promgun.store.folding import fold_dead, has_begun
from promgun.store.healing import Harm, find_harm
from promgun.store.home import SlotHome
from promgun.store.run_directory import RunDirectory
from promgun.store.slot_file import FILE_SIZE

#: Ended processes' files are looked for in every fifth call, and in the first one after a rest.
_FOLD_EVERY = 5


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Kept:
    """How many files of the slot were made again, and whether rows were lost with them."""

    healed: int = 0
    lost_rows: bool = False


class SlotUpkeep:
    """Maintains the files of a slot, the links to them, and the files of ended processes that ran without promgun.

    Nothing here raises. Each kind of warning is given once, those that all workers would give alike once a run.
    """

    def __init__(self, run: RunDirectory, home: SlotHome) -> None:
        self._home = home
        self._run = run
        self._links = ClientLinks(run)
        self._states = FolderStates()
        self._folders = tuple(map(str, (run.slots, run.master, *run.clients)))
        self._rested = False
        if not has_begun(run):
            self._links.remove_stale()
        self._calls = 0
        self._warned: set[str] = set()
        self._new: list[str] = []
        fold_dead(run)

    def is_untouched(self, files: Iterable[ValueFile]) -> bool:
        """Whether no file has come, gone or been replaced in the directories since the last call, and none of the slot
        has been cut: a few stat(2).
        """
        own = self._home.file
        self._rested = (
            self._states.unchanged(self._folders)
            and find_harm(own.path, own.identity, FILE_SIZE) is Harm.NONE
            and all(file.find_harm() is Harm.NONE for file in files)
        )
        return self._rested

    def heal(self, files: Iterable[ValueFile]) -> Kept:
        """Make files again that somebody removed, replaced or cut; hold the store's lock."""
        guarded = heal_files(self._home.file, files, self._home.heal_lock)
        self._warn_once("files", guarded.warning)
        return Kept(len(guarded.healed), guarded.lost_rows)

    def tend(self, warn: Callable[[str], None] | None) -> None:
        """Make links again, fold what ended processes left, and look at the settings of prometheus_client; ``warn`` is
        called with each warning since the last call. All of it is done in the first call after a rest.
        """
        self._calls += 1
        if self._rested or self._calls % _FOLD_EVERY == 0:
            fold_dead(self._run)
        tended = self._links.tend(all_links=self._rested)
        self._rested = False
        self._warn_once("links", tended.warning)
        self._warn_once_a_run("shared", tended.warning_of_another)
        for kind, warning in changed_settings(self._run).items():
            self._warn_once_a_run(kind, warning)
        new, self._new = self._new, []
        if warn is not None:
            for warning in new:
                warn(warning)

    def _warn_once(self, kind: str, warning: str) -> None:
        if warning and kind not in self._warned:
            self._warned.add(kind)
            self._new.append(warning)

    def _warn_once_a_run(self, kind: str, warning: str) -> None:
        if warning and kind not in self._warned and is_first_of_run(self._run, kind):
            self._new.append(warning)
        if warning:
            self._warned.add(kind)
