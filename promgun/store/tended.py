"""What was done in the client directories, and what an operator is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Tended:
    """What was done in the client directories.

    ``remade`` are directories, and ``restored`` links, that others had removed or replaced. ``made`` are links to new
    files, ``failed`` those that could not be made. ``anothers`` is a directory that another running server has.
    """

    remade: tuple[Path, ...] = ()
    restored: tuple[Path, ...] = ()
    made: tuple[Path, ...] = ()
    failed: tuple[Path, ...] = ()
    anothers: Path | None = None

    @property
    def warning_of_another(self) -> str:
        """The text to log once a run when another server has the directory; empty if none has."""
        if self.anothers is None:
            return ""
        return (
            f"{self.anothers}, which PROMETHEUS_MULTIPROC_DIR names, is in use by another running server: until that "
            "one ends, this server's metrics are on its own page only, and what other processes write there is on the "
            "other's. Give each server a directory of its own"
        )

    @property
    def warning(self) -> str:
        """The text to log once for the operator; empty when nobody had removed or replaced anything."""
        touched = self.remade or self.restored
        if not touched:
            return ""
        what = (
            f"{self.remade[0]} was removed or replaced"
            if self.remade
            else f"{len(touched)} files were removed or replaced"
        )
        where = "" if self.remade else f" in {touched[0].parent}"
        return (
            f"{what}{where}, a directory that PROMETHEUS_MULTIPROC_DIR or --metrics-dir names: no metrics are lost, "
            "and prometheus_client's own readers find them there again. promgun empties it at each start, so your code "
            "need not do that"
        )
