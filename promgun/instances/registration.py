"""Makes a master known to promgun's commands: by an entry in the list of running instances and by its store."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from promgun.errors import PromgunError
from promgun.instances.entries import Run, clean_name
from promgun.instances.registry import register, withdraw
from promgun.store.master_info import MasterFacts, write_facts
from promgun.store.run_directory import RunDirectory


class Registration:
    """One master's entry in the list and its facts in the store; where they cannot be written, a warning is logged."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._facts: Path | None = None
        self._entry: Path | None = None
        self._name = ""

    def announce(self, facts: MasterFacts, log: Any) -> None:
        """Write or renew both; in the store the master gets the name that its instance has in the list."""
        facts = replace(facts, name=self._register(facts, log))
        try:
            self._facts = write_facts(self._directory, facts)
        except OSError as error:
            log.warning("The name and the addresses of this run cannot be written to its store: %s", error)

    def _register(self, facts: MasterFacts, log: Any) -> str:
        """Enter the run into the list; gives the instance's name."""
        wanted = clean_name(facts.name)
        run = Run(
            name=wanted,
            pid=facts.pid,
            started=facts.started,
            application=facts.application,
            worker_type=facts.worker_type,
            addresses=facts.addresses,
            metrics_addresses=facts.metrics_addresses,
            store=self._directory.path,
        )
        try:
            self._entry, run = register(run)
        except (OSError, PromgunError) as error:
            log.warning("This run cannot be registered, so 'promgun metrics dump' needs --dir or --url: %s", error)
        if run.name not in {wanted, self._name}:
            log.info("The name %s is taken: promgun ps shows this instance as %s", wanted, run.name)
        self._name = run.name
        return run.name

    def withdraw(self) -> None:
        """Remove both."""
        if self._entry is not None:
            with contextlib.suppress(OSError):
                withdraw(self._entry)
        if self._facts is not None:
            with contextlib.suppress(OSError):
                self._facts.unlink(missing_ok=True)
