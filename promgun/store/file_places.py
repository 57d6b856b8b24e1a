"""Places in the files of a process: rows of its slot, and keys of files in prometheus_client's format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from promgun.store.board import Cell, count, renew
from promgun.store.pending import Places
from promgun.store.row_format import RowSchema

if TYPE_CHECKING:
    from typing import Protocol

    from promgun.store.board import Board
    from promgun.store.exclusive import ExclusiveChange
    from promgun.store.files import ValueFile
    from promgun.store.home import ProcessHome

    class FileOwner(Protocol):
        """What :class:`FilePlaces` needs of the process's store."""

        board: Board
        change: ExclusiveChange

        def find_home(self) -> ProcessHome:
            """Return where this process stores; raises ``OSError`` while that fails."""


class FilePlaces:
    """Finds and makes places in files; every method raises ``OSError`` while there is no room or no file."""

    def __init__(self, owner: FileOwner) -> None:
        self._owner = owner
        #: the open files of prometheus_client's format, by type
        self.files: dict[str, ValueFile] = {}

    def row(self, schema: RowSchema, values: tuple[str, ...], instead_of: tuple[str, ...] | None = None) -> Places:
        """Return the cells of a row and their indexes.

        With ``instead_of`` that row, which must be as long, gets these values, and all its numbers are 0.
        """
        if instead_of is not None:
            return self._reuse_row(schema, values, instead_of)
        change = self._owner.change
        # As change.begin(), which takes as long as all the rest: a request waits for its label set's row.
        with change.lock:
            if change.inside:
                raise change.refusal()
            change.inside = True
            try:
                cells, index = self._owner.find_home().rows.table(schema).place(values)
            finally:
                change.inside = False
        return cells, range(index, index + schema.cells)

    def _reuse_row(self, schema: RowSchema, values: tuple[str, ...], instead_of: tuple[str, ...]) -> Places:
        with self._owner.change.begin():
            table = self._owner.find_home().rows.table(schema)
            # Readers know the values of rows that they have read, until the edition changes.
            renew(self._owner.board.cells)
            cells, index = table.reuse(instead_of, values)
            renew(self._owner.board.cells)
            return cells, range(index, index + schema.cells)

    def row_values(self, schema: RowSchema) -> list[tuple[str, ...]]:
        """Return the label values of a schema's rows, those of earlier owners included, and of the rows of schemas that
        differ from it in other cells only.
        """
        with self._owner.change.begin():
            return self._owner.find_home().rows.values_like(schema)

    def keys(self, prefix: str, keys: Sequence[str]) -> Places:
        """Return the cells of a file and the index of each key in it; ``prefix`` is the type as in file names."""
        with self._owner.change.begin():
            file = self.files.get(prefix) or self._open_file(prefix)
            indexes = file.indexes(keys)
            return file.cells, indexes

    def _open_file(self, prefix: str) -> ValueFile:
        file = self.files[prefix] = self._owner.find_home().open_value_file(prefix)
        if file.damage:
            count(self._owner.board.cells, Cell.ERRORS_CORRUPT)
        return file
