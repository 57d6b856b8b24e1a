"""When a process started and what it has used, read from /proc: the one parser of /proc/PID/stat.

A zombie keeps its times, so whoever looks between its end and the booking by its master sees no less than before.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_NS = 1_000_000_000
_TICK = _NS // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SWITCHES = re.compile(rb"^((?:non)?voluntary_ctxt_switches):\s*(\d+)$", re.MULTILINE)
HAS_PROC = os.path.exists("/proc/self/stat")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU nanoseconds, context switches, threads, resident bytes; ``start`` as in :func:`process_start`, whatever state
    it is in. One that has ``ended`` waits to be reaped.
    """

    start: int
    user: int
    system: int
    voluntary: int
    involuntary: int
    threads: int
    resident: int
    ended: bool


def _stat_fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the third on: ``fields[n]`` is field ``n + 3`` of proc(5).

    The second is the command in parentheses, which may hold anything, parentheses too. Raises ``OSError``.
    """
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()


def _has_ended(fields: list[bytes]) -> bool:
    # a zombie has ended, whatever its parent knows
    return fields[0] in (b"Z", b"X")


def process_start(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 where that cannot be told, -1 when there is no such
    process or it waits to be reaped. A pid that is used again has another start.
    """
    try:
        fields = _stat_fields(pid)
    except FileNotFoundError:
        return -1 if HAS_PROC else _start_without_proc(pid)
    except (ProcessLookupError, PermissionError):
        return -1
    return -1 if _has_ended(fields) else int(fields[19])


def _start_without_proc(pid: int) -> int:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except PermissionError:
        return 0
    return 0


def read_usage(pid: int) -> Usage | None:
    """Return what a process has used; ``None`` when there is none of that pid, or no /proc (proc(5): stat, status)."""
    try:
        fields = _stat_fields(pid)
        with open(f"/proc/{pid}/status", "rb") as status:
            switches = {name: int(value) for name, value in _SWITCHES.findall(status.read())}
        return Usage(
            start=int(fields[19]),
            user=int(fields[11]) * _TICK,
            system=int(fields[12]) * _TICK,
            voluntary=switches.get(b"voluntary_ctxt_switches", 0),
            involuntary=switches.get(b"nonvoluntary_ctxt_switches", 0),
            threads=int(fields[17]),
            resident=int(fields[21]) * _PAGE,
            ended=_has_ended(fields),
        )
    except (OSError, IndexError, ValueError):
        return None


def cpu_wait_ns() -> int | None:
    """Return the nanoseconds for which the threads of this process were ready but given no CPU; ``None`` where nobody
    counts.

    Second field of /proc/self/task/TID/schedstat (Linux, Documentation/scheduler/sched-stats).
    """
    total = 0
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/schedstat", "rb") as schedstat:
                total += int(schedstat.read().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return total
