"""Where snapshots come from: a store on this machine, whose instance is found again by name, or the page at a URL."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode, urlsplit, urlunsplit

from promgun.collect.reading import InstanceReader
from promgun.errors import InstanceError, PromgunError, StoreError
from promgun.instances.credentials import Credentials
from promgun.instances.page_source import UrlSource, source_for
from promgun.instances.reading_child import StoreQuestion
from promgun.instances.registry import find
from promgun.status import from_store
from promgun.status.from_page import FAMILIES, snapshot_of
from promgun.status.snapshot import Details, Snapshot
from promgun.store.run_places import run_in

#: Seconds to wait for a page: a view that would stand still for longer should say that nobody answers.
TIMEOUT = 3.0


class SnapshotSource(Protocol):
    """Something to take snapshots of; ``name`` is what to call it."""

    name: str

    def snapshot(self) -> Snapshot:
        """The state now; raises ``PromgunError`` while the instance is gone, and may be asked again."""


class StoreSnapshots:
    """Of the instance that runs on a store; ``named`` instances are looked for again when they are gone."""

    def __init__(self, store: Path, name: str = "") -> None:
        self.name = name or str(store)
        self._named = bool(name)
        self._store = store
        self._question: StoreQuestion[Snapshot] | None = None

    def snapshot(self) -> Snapshot:
        """Raises ``InstanceError`` while no master lives, ``StoreError`` when there is no such directory."""
        if self._question is None:
            self._question = _snapshots_of(find(self.name).store if self._named else self._store)
        try:
            snapshot = self._question.ask()
        except StoreError:
            self._forget()
            raise
        if snapshot.up:
            self.name = snapshot.details.name or self.name
            return snapshot
        self._forget()
        if not self._named and not self._store.is_dir():
            raise StoreError(f"cannot read the store {self._store}", "Is the instance still running? See: promgun ps")
        what = f"{self.name} is not running" if self._named else f"no instance runs on the store {self._store}"
        raise InstanceError(what, "See: promgun ps")

    def _forget(self) -> None:
        if self._question is not None:
            self._question.close()
            self._question = None


def _snapshots_of(store: Path) -> StoreQuestion[Snapshot]:
    reader: list[InstanceReader] = []

    def take() -> Snapshot:
        # Looked for in the process that reads.
        if not reader:
            reader.append(InstanceReader(run_in(store)))
        return from_store.snapshot_of(reader[0].read(whole=False))

    return StoreQuestion(store, Snapshot, take)


class PageSnapshots:
    """Of the instance whose page ``url`` serves."""

    def __init__(self, source: UrlSource) -> None:
        self.name = source.url
        self._source = replace(source, url=with_names(source.url), timeout=TIMEOUT)

    def snapshot(self) -> Snapshot:
        """Raises ``InstanceError`` while nobody answers, or answers that the master is gone."""
        try:
            families = self._source.families()
        except PromgunError as error:
            # the user did not ask for our query
            raise type(error)(error.message.replace(self._source.url, self.name), error.hint) from error
        snapshot = snapshot_of(families, taken=time.monotonic(), at=time.time(), details=Details())
        if snapshot.up:
            return snapshot
        raise InstanceError(f"{self.name} says that the instance is not running", "Name the page of one that is")


def with_names(url: str) -> str:
    """``url`` with a query for no more than a snapshot reads; a server that does not know it sends the whole page."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
    except ValueError:
        return url
    if parts.scheme not in {"http", "https"} or url.startswith("unix:"):
        return url
    names = urlencode([("name[]", name) for name in sorted(FAMILIES)])
    query = f"{parts.query}&{names}" if parts.query else names
    return urlunsplit(parts._replace(query=query))


def snapshots_of(
    instance: str | None, directory: Path | None, url: str | None, credentials: Credentials | None = None
) -> SnapshotSource:
    """The source that the options name; with none of them the only running instance.

    Raises ``UsageError`` if more than one is given, or ``credentials`` without a URL, and ``InstanceError`` if the
    instance cannot be found.
    """
    source = source_for(instance, directory, url, credentials)
    if isinstance(source, UrlSource):
        return PageSnapshots(source)
    return StoreSnapshots(source.path, "" if directory is not None else find(instance).name)
