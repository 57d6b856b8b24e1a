"""An entry of the list of running instances: how it is written, and how it is read from a file that is not trusted.

A list may be another user's, so no link is followed, no file is waited for or read without bound, and an entry counts
only if it is valid: each field has its type, times and pids are possible ones, and texts can be printed as UTF-8.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from promgun.system.safe_open import read_regular

NAME_LIMIT = 64
#: Bytes that an entry may have (a few addresses and paths), and all of a list together.
ENTRY_LIMIT = 1 << 16
LIST_LIMIT = 1 << 22
#: How many names of a directory are looked at.
MOST_NAMES = 10_000
#: The most that Linux gives (include/linux/threads.h, PID_MAX_LIMIT).
_MOST_PID = 1 << 22
_FILE = re.compile(r"([1-9][0-9]{0,9})\.json")
#: Unix seconds of the year 5138.
_LATEST = 1e11


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Run:
    """A running master: ``started`` in Unix seconds, ``store`` its store directory."""

    name: str
    pid: int
    started: float
    application: str
    worker_type: str
    addresses: tuple[str, ...]
    metrics_addresses: tuple[str, ...]
    store: Path

    def uptime(self, now: float | None = None) -> float:
        """Seconds since the start; ``now`` is the clock to compare with."""
        return max(0.0, (time.time() if now is None else now) - self.started)


class Found(NamedTuple):
    """The content of an entry: a run, and the identity of its process (``registry.process_identity``)."""

    run: Run
    process: str


def clean_name(wanted: str) -> str:
    """Return ``wanted`` as the name of an instance: at most 64 ASCII letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-.")[:NAME_LIMIT].rstrip("-.") or "promgun"


def entry_name(pid: int) -> str:
    """Return the name of a master's file."""
    return f"{pid}.json"


def entry_text(run: Run, process: str) -> str:
    """Return the content of a master's file; ``process`` identifies the master."""
    return json.dumps(asdict(run) | {"store": str(run.store), "process": process}, indent=1)


def read_entries(directory_fd: int) -> Iterator[tuple[str, Found]]:
    """Yield the entries in an open directory, each with the name of its file; invalid files are skipped."""
    budget = LIST_LIMIT
    for name in _names(directory_fd):
        data = read_regular(directory_fd, name, min(ENTRY_LIMIT, budget))
        if data is None:
            continue
        budget -= len(data)
        found = parse_entry(data)
        if found is not None and entry_name(found.run.pid) == name:
            yield name, found


def _names(directory_fd: int) -> list[str]:
    try:
        with os.scandir(directory_fd) as files:
            return [file.name for file in islice(files, MOST_NAMES) if _FILE.fullmatch(file.name)]
    except OSError:
        return []


def parse_entry(data: bytes) -> Found | None:
    """Return the entry in a file's content; ``None`` if it is not valid."""
    try:
        raw = json.loads(data, parse_constant=_refuse)
        process = _text(raw, "process")
        return Found(_run(raw), process) if process else None
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _run(raw: Any) -> Run:
    pid, started = raw["pid"], raw["started"]
    if type(pid) is not int or not 0 < pid <= _MOST_PID:
        raise ValueError("no pid")
    if type(started) not in (int, float) or not 0 <= started <= _LATEST:
        raise ValueError("no time")
    name, store = _text(raw, "name"), Path(_text(raw, "store"))
    if name != clean_name(name) or not store.is_absolute():
        raise ValueError("no name, or no place")
    return Run(
        name=name,
        pid=pid,
        started=float(started),
        application=_text(raw, "application"),
        worker_type=_text(raw, "worker_type"),
        addresses=_texts(raw, "addresses"),
        metrics_addresses=_texts(raw, "metrics_addresses"),
        store=store,
    )


def _text(raw: Any, field: str) -> str:
    return _checked(raw[field])


def _texts(raw: Any, field: str) -> tuple[str, ...]:
    values = raw[field]
    if type(values) is not list:
        raise ValueError("no list")
    return tuple(_checked(value) for value in values)


def _checked(value: Any) -> str:
    if type(value) is not str or "\0" in value:
        raise ValueError("no text")
    # The surrogates that stand for a file name's bytes (PEP 383) pass; others are no text.
    os.fsencode(value)
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
