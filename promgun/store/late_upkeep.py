"""Loads the upkeep of a slot a second after a server's first worker has booted: its dozen modules would delay the
server's first answer. The master loads them right after that worker's fork, so all later workers have them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from promgun.store.home import SlotHome
from promgun.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from promgun.store.files import ValueFile
    from promgun.store.upkeep import SlotUpkeep


class LateUpkeep:
    """The upkeep of this process's slot, made when it is first asked for, unless other runs may have left files."""

    def __init__(self) -> None:
        self._slot: tuple[RunDirectory, SlotHome] | None = None
        self._upkeep: SlotUpkeep | None = None

    def begin(self, run: RunDirectory, home: SlotHome) -> None:
        """Take a slot into care. Never raises."""
        self._slot = run, home
        if not run.private or run.second_client is not None:
            # The application must not find what an earlier run left there.
            self.get()

    def get(self) -> SlotUpkeep | None:
        """Return the upkeep; ``None`` without a slot, or in a process that can no longer read this package."""
        if self._upkeep is None and self._slot is not None:
            try:
                from promgun.store.upkeep import SlotUpkeep  # noqa: PLC0415 - the purpose of this module
            except (ImportError, OSError):
                return None
            self._upkeep = SlotUpkeep(*self._slot)
        return self._upkeep

    def is_untouched(self, files: Iterable[ValueFile]) -> bool:
        """Whether nobody has touched the slot's files since the last call; see :class:`SlotUpkeep`."""
        upkeep = self.get()
        return upkeep is not None and upkeep.is_untouched(files)


def load_ahead() -> None:
    """Import what :class:`LateUpkeep` would, for this process and those that it forks; and what removes a run's
    directory at its end, when no descriptor may be free.
    """
    import promgun.store.upkeep  # noqa: PLC0415 - the purpose of this module
    import promgun.system.remove_tree  # noqa: F401, PLC0415 - same
