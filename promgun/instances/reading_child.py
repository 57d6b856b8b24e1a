"""Reads stores that another user can write to: root has a child with that user's rights read them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from promgun.errors import PromgunError, StoreError
from promgun.store.readers_rights import rights_to_read
from promgun.system.fewer_rights import Child
from promgun.system.plain_data import dumps, loads

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Failure:
    message: str
    hint: str


class StoreQuestion(Generic[T]):
    """Reads a store again and again by ``answer``: in this process, or in a child that has given up root's rights.

    What ``answer`` returns is of the type ``kind``, made of dataclasses, tuples, mappings, texts and numbers.
    """

    def __init__(self, store: Path, kind: Any, answer: Callable[[], T]) -> None:
        self._store = store
        self._kind = tuple[kind | None, _Failure | None]
        self._answer = answer
        rights = rights_to_read(store)
        self._child: Child | None = None
        if rights is not None:
            try:
                self._child = Child(rights.uid, rights.gid, self._answer_as_bytes)
            except OSError as error:
                raise StoreError(f"cannot read the store {store} as its user: {error.strerror or error}") from error

    def ask(self) -> T:
        """Return the answer; raises what ``answer`` raises, and ``StoreError`` for a child that does not answer."""
        if self._child is None:
            return self._answer()
        try:
            answer, failure = loads(self._kind, self._child.ask())
        except (OSError, ValueError) as error:
            self.close()
            why = getattr(error, "strerror", None) or "the answer of the process that reads it is not valid"
            raise StoreError(f"cannot read the store {self._store}: {why}") from error
        if failure is not None:
            raise StoreError(failure.message, failure.hint)
        return answer  # type: ignore[no-any-return] # of ``kind``

    def _answer_as_bytes(self) -> bytes:
        try:
            return dumps((self._answer(), None))
        except PromgunError as error:
            failure = _Failure(error.message, error.hint)
        except Exception as error:  # noqa: BLE001 - the command says it in one line
            failure = _Failure(f"cannot read the store {self._store}: {type(error).__name__}: {error}", "")
        return dumps((None, failure))

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.close()


def ask_once(store: Path, kind: Any, answer: Callable[[], T]) -> T:
    """Return the answer of a :class:`StoreQuestion` that is asked once."""
    with closing(StoreQuestion(store, kind, answer)) as question:
        return question.ask()
