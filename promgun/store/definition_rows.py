"""The rows of definitions in a process's slot: how many there may be, and which are used again.

A slot's rows outlive its owners. What an application tells with an info may differ with each process (a start time, a
pid), so rows of infos and enums may take at most about half of the room, and the oldest is used again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from promgun.store.definitions import CHANGED, ENUM, INFO, SCHEMA, parse_definition
from promgun.store.pending import Places
from promgun.store.row_format import RowSchema

#: The most rows of definitions in a slot, rows of earlier owners included, and the most bytes of their texts.
MOST_ROWS = 1000
MOST_BYTES = 1 << 20
#: Rows can be used again for a text of the same length; of each length there may always be this many.
_SPARE = 16
_SHORTEST = 128


class RowStore(Protocol):
    """What :class:`DefinitionRows` needs of the process's store."""

    warn: Callable[[str], None] | None

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Guards every change of a place."""

    def row_values(self, schema: RowSchema) -> list[tuple[str, ...]]:
        """Return the rows that are there; raises ``OSError`` while there is no slot."""

    def place_row(
        self, schema: RowSchema, values: tuple[str, ...], instead_of: tuple[str, ...] | None = None
    ) -> Places:
        """Return the cells of a row, and their indexes; raises ``OSError`` while there is no room.

        With ``instead_of`` that row, which must be as long, gets these values.
        """

    def count_error(self, error: OSError) -> None:
        """Count what could not be stored."""


class NoRoomError(Exception):
    """A process keeps no more definitions."""


def padded(text: str) -> str:
    """Return the text of an info or enum with blanks up to the next power of two, so that rows can be used again."""
    return text.ljust(max(_SHORTEST, 1 << (len(text) - 1).bit_length()))


class DefinitionRows:
    """Finds, makes and reuses rows, each known by its text. Hold the store's lock for each call."""

    def __init__(self, store: RowStore) -> None:
        self._store = store
        self._places: dict[str, Places] | None = None
        self._refused = False

    def forget(self) -> None:
        """Forget all places: after a fork they belong to the parent, or the file was made anew."""
        self._places = None

    def place(self, text: str, in_use: Collection[str]) -> Places | None:
        """Return the place of a definition; ``None`` while the store has no space.

        ``in_use`` are texts that this process still needs. Raises :class:`NoRoomError` when there are too many.
        """
        try:
            places = self._known()
            found = places.get(text)
            if found is None:
                found = self._make(places, text, in_use)
        except OSError as error:
            if not self._refused:
                # Tried once a second: each time would count.
                self._refused = True
                self._store.count_error(error)
            return None
        self._refused = False
        return found

    def _known(self) -> dict[str, Places]:
        if self._places is None:
            rows = self._store.row_values(SCHEMA)
            self._places = {values[0]: self._store.place_row(SCHEMA, values) for values in rows}
        return self._places

    def _make(self, places: dict[str, Places], text: str, in_use: Collection[str]) -> Places:
        old = _row_to_reuse(places, text, in_use)
        if old is None:
            if len(places) >= MOST_ROWS or sum(map(len, places)) + len(text) > MOST_BYTES:
                raise NoRoomError
            place = self._store.place_row(SCHEMA, (text,))
        else:
            place = self._store.place_row(SCHEMA, (text,), (old,))
            del places[old]
        places[text] = place
        return place


def _row_to_reuse(places: dict[str, Places], text: str, in_use: Collection[str]) -> str | None:
    """Return the text of the row to use again, ``None`` when a new one is made."""
    if not _has_content(text):
        return None
    contents = [known for known in places if _has_content(known)]
    alike = [known for known in contents if _row_size(known) == _row_size(text)]
    if len(alike) < _SPARE:
        return None
    oldest = sorted((known for known in alike if known not in in_use), key=lambda known: _changed(places[known]))
    replaced = next(_superseded(places, contents, oldest), None)
    if replaced is not None:
        return replaced
    if len(contents) < MOST_ROWS // 2 and sum(map(len, contents)) + len(text) <= MOST_BYTES // 2:
        return None
    if not oldest:
        raise NoRoomError
    return oldest[0]


def _superseded(places: dict[str, Places], contents: list[str], oldest: list[str]) -> Iterator[str]:
    """Yield those of ``oldest`` that are blank, or older than another row about the same metric."""
    newest: dict[Any, float] = {}
    for known in contents:
        about = _about(known)
        newest[about] = max(newest.get(about, 0.0), _changed(places[known]))
    return (known for known in oldest if (about := _about(known)) is None or _changed(places[known]) < newest[about])


def _row_size(text: str) -> int:
    """Return the length of a text's row, in units of 8 bytes and less what all rows have (``store.row_format``)."""
    return -(-(len(text.encode()) + 10) // 8)


def _has_content(text: str) -> bool:
    definition = parse_definition(text)
    return definition is None or definition.kind in (INFO, ENUM)


def _about(text: str) -> tuple[str, Any] | None:
    definition = parse_definition(text)
    return None if definition is None else (definition.family, definition.labels)


def _changed(place: Places) -> float:
    cells, indexes = place
    value: float = cells[indexes[CHANGED]]
    return value
