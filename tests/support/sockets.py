"""The sockets of a process, in every supported version of psutil."""

from __future__ import annotations

from typing import Any

import psutil


def connections_of(pid: int, kind: str = "inet") -> list[Any]:
    """Return what psutil knows of a process's sockets of a ``kind``; version 6 renamed the question."""
    process = psutil.Process(pid)
    ask = getattr(process, "net_connections", None) or process.connections
    return list(ask(kind))
