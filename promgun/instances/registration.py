"""Telling others that a run exists: its facts in the store, its entry under the runtime directory."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from promgun.errors import PromgunError
from promgun.instances.registry import Run, register
from promgun.store.directory import StoreDirectory
from promgun.store.master_info import MasterFacts, write_facts


class Registration:
    """The entries of one master; trouble with them is a log line, never the end of a server."""

    def __init__(self, directory: StoreDirectory) -> None:
        self._directory = directory
        self._facts: Path | None = None
        self._entry: Path | None = None

    def announce(self, facts: MasterFacts, log: Any) -> None:
        """Write or renew the entries."""
        owner = self._directory.owner
        try:
            write_facts(self._directory.path, facts, owner.uid, owner.gid)
            self._facts = self._directory.path / f"master-slot{facts.slot}.json"
            run = Run(
                name=facts.name,
                pid=facts.pid,
                started=facts.started,
                application=facts.application,
                worker_type=facts.worker_type,
                addresses=facts.addresses,
                metrics_addresses=facts.metrics_addresses,
                store=self._directory.path,
            )
            self._entry = register(run)
        except (OSError, PromgunError) as error:
            log.warning("This run cannot be registered, so 'promgun metrics dump' needs --dir or --url: %s", error)

    def withdraw(self) -> None:
        """Remove the entries."""
        for path in (self._facts, self._entry):
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
