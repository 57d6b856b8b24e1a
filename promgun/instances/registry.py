"""The list of running instances: one small file for each master, in a directory that only its user may write to.

An entry counts while the process that wrote it lives: pid and start time are compared, so a reused pid never passes
for a server. Whoever reads a list of their own removes the entries of dead processes. What an entry may be is in
``entries``.

The name of an instance, everywhere it is shown and for ``--instance``: masters that share a store (an upgrade by
SIGUSR2) are one instance, and its newest master gives the name. That is the cleaned value of ``--name``, else of the
application; ``-2``, ``-3``, … is appended if another instance had the name first. Two users cannot see each other's
lists; where root reads both and finds a name twice, the pid tells them apart.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from promgun.errors import InstanceError
from promgun.instances.entries import Run, clean_name, entry_name, entry_text, read_entries
from promgun.instances.runtime_directory import (
    ListDirectory,
    locked,
    open_list,
    readable_directories,
    why_unreadable,
    writable_directory,
)
from promgun.system.atomic_file import write_atomically
from promgun.system.procfs import HAS_PROC, boot_id, process_start


class Entry(NamedTuple):
    """A master in the list: its file, and the run with the name that it was given."""

    path: Path
    run: Run


def register(run: Run) -> Entry:
    """Write ``run`` into the list, or write it anew when its addresses change.

    The run gets the name of its instance (see this module's docstring). Raises ``ConfigurationError`` if no directory
    can hold the list.
    """
    place = writable_directory()
    path = place / entry_name(run.pid)
    with open_list(place) as directory, locked(directory):
        run = replace(run, name=_instance_name(run, _all_entries()))
        write_atomically(path, entry_text(run, process_identity(run.pid)), durable=False)
    return Entry(path, run)


def withdraw(path: Path) -> None:
    """Remove an entry of this user's; raises ``OSError``."""
    with open_list(path.parent) as directory:
        os.unlink(path.name, dir_fd=directory.fd)


def live_runs() -> tuple[Run, ...]:
    """Every running master that this user may see, oldest first, each with the name of its instance.

    Entries of dead processes are removed.
    """
    runs = sorted(_all_entries(), key=lambda run: (run.started, run.pid))
    names = {run.store: run.name for run in runs}
    return tuple(replace(run, name=names[run.store]) for run in runs)


def instances() -> tuple[Run, ...]:
    """Every running instance, as its newest master."""
    newest = {run.store: run for run in live_runs()}
    return tuple(newest.values())


def find(name_or_pid: str | None) -> Run:
    """The instance of that name, or with a master of that pid; without an argument the only one that runs.

    Raises ``InstanceError`` if there is no such instance, or more than one.
    """
    runs = instances()
    if name_or_pid is None:
        return _only(runs, "running", "Choose one with --instance NAME (or its pid)")
    named = [run for run in runs if run.name == name_or_pid]
    if named:
        return _only(named, f"called {name_or_pid!r}", "Choose one by its pid: --instance PID")
    of_pid = [run for run in live_runs() if str(run.pid) == name_or_pid]
    if of_pid:
        return of_pid[0]
    known = ", ".join(run.name for run in runs) or "none"
    raise InstanceError(f"no running instance is called {name_or_pid!r}", f"Running: {known} (see promgun ps)")


def handles() -> dict[str, Run]:
    """Return what ``--instance`` accepts for each running instance: its name, or its pid where two have that name."""
    runs = instances()
    names = [run.name for run in runs]
    return {run.name if names.count(run.name) == 1 else str(run.pid): run for run in runs}


def _only(runs: Sequence[Run], what: str, hint: str) -> Run:
    if not runs:
        why = why_unreadable()
        raise InstanceError(
            f"no running promgun instance{why and f' is known: {why}'}",
            "Start one with: promgun run APP, or name a source with --dir or --url",
        )
    if len(runs) > 1:
        listed = "; ".join(f"{run.name} (pid {run.pid}, {run.application})" for run in runs)
        raise InstanceError(f"{len(runs)} instances are {what}: {listed}", hint)
    return runs[0]


# -- entries ---------------------------------------------------------------------------------------------------------


def _live_entries(directory: ListDirectory) -> Iterator[Run]:
    for name, (run, process) in read_entries(directory.fd):
        if process == process_identity(run.pid):
            yield run
        elif directory.own and _same_machine(process):
            # What cannot be removed, as on a read-only file system, stays.
            with suppress(OSError):
                os.unlink(name, dir_fd=directory.fd)


def _all_entries() -> list[Run]:
    return [run for directory in readable_directories() for run in _live_entries(directory)]


def _instance_name(run: Run, entries: Sequence[Run]) -> str:
    """The name that ``run`` has already, or that its store's other master has, or the first that is free."""
    wanted = clean_name(run.name)
    of_instance = [entry.name for entry in entries if entry.pid == run.pid or entry.store == run.store]
    for name in of_instance:
        if re.fullmatch(re.escape(wanted) + r"(-\d+)?", name):
            return name
    taken = {entry.name for entry in entries}
    numbered = (f"{wanted}-{number}" for number in count(2))
    return next(name for name in chain([wanted], numbered) if name not in taken)


# -- processes -------------------------------------------------------------------------------------------------------


def process_identity(pid: int) -> str:
    """A text that identifies a process for ever, though its pid is used again; empty for a dead one and a zombie.

    On Linux: boot id, pid namespace, and start in ticks since boot, which no step of the clock can move (psutil's
    ``create_time`` moves with it). Elsewhere the start time as psutil gives it.
    """
    if not HAS_PROC:
        return _identity_elsewhere(pid)
    start = process_start(pid)
    return f"{_machine()} {start}" if start >= 0 else ""


def _identity_elsewhere(pid: int) -> str:
    import psutil  # noqa: PLC0415 - needed off Linux only

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"local {process.create_time()}"
    except psutil.Error:
        return ""


def _machine() -> str:
    try:
        return f"{boot_id()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "local"


def _same_machine(process: str) -> bool:
    """Whether an entry's pid belongs to this pid namespace; entries of other containers are left alone."""
    written = process.rpartition(" ")[0]
    here = _machine() if HAS_PROC else "local"
    return written == here or written.partition("/")[0] != here.partition("/")[0]
