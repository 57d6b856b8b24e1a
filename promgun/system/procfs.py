"""When a process started and what it has used, read from /proc: the one parser of /proc/PID/stat.

A zombie keeps its times, so a reader between a process's end and its reaping sees no lower figures.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promgun.system.kept_files import KeptFiles

_NS = 1_000_000_000
_TICK = _NS // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: More bytes than the kernel writes into any of these files, so that one read returns everything.
_MOST_BYTES = 1 << 14
_VOLUNTARY = b"\nvoluntary_ctxt_switches:"
_INVOLUNTARY = b"nonvoluntary_ctxt_switches:"
#: How many fields of /proc/PID/stat from the third on are used.
_USED_FIELDS = 22
HAS_PROC = os.path.exists("/proc/self/stat")
#: Since Linux 4.14.
HAS_SMAPS_ROLLUP = os.path.exists("/proc/self/smaps_rollup")


# No named tuple: making one takes ten times as long (CPython 3.11), and each start waits for it.
class Usage:
    """CPU nanoseconds, context switches, threads and resident bytes of a process.

    ``start`` is as in :func:`process_start`, also for a zombie. A process that has ``ended`` waits to be reaped.
    """

    __slots__ = ("ended", "involuntary", "resident", "start", "system", "threads", "user", "voluntary")

    def __init__(
        self,
        start: int,
        user: int,
        system: int,
        voluntary: int,
        involuntary: int,
        threads: int,
        resident: int,
        *,
        ended: bool,
    ) -> None:
        self.start = start
        self.user = user
        self.system = system
        self.voluntary = voluntary
        self.involuntary = involuntary
        self.threads = threads
        self.resident = resident
        self.ended = ended


def _stat_fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the third on: ``fields[n]`` is field ``n + 3`` of proc(5).

    The second is the command in parentheses, which may hold anything, parentheses too. Raises ``OSError``.
    """
    return _fields_of(_read(f"/proc/{pid}/stat"))


def _fields_of(stat: bytes) -> list[bytes]:
    return stat.rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    # open() makes four more system calls (fstat, ioctl, lseek, a second read; Python 3.11) and takes 1.5 times as long
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _MOST_BYTES)
    finally:
        os.close(fd)


def _has_ended(fields: list[bytes]) -> bool:
    # a zombie has ended, even if its parent has not noticed
    return fields[0] in (b"Z", b"X")


def process_start(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 where that is unknown, -1 when there is no such
    process or it is a zombie. A later process with the same pid has a different start.
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
    """Return what a process has used; ``None`` when it does not exist, or there is no /proc (proc(5): stat, status)."""
    return _usage(pid, _read)


class ProcessFiles:
    """Reads processes again and again; their files in /proc stay open in ``kept``.

    A descriptor of such a file belongs to the process, not to its number: after its end reading fails (ESRCH), and the
    file is opened anew, which is that of another process, or there is none.
    """

    def __init__(self, kept: KeptFiles) -> None:
        self._kept = kept

    def usage(self, pid: int) -> Usage | None:
        """Return what a process has used, as :func:`read_usage` does."""
        return _usage(pid, self._read)

    def _read(self, path: str) -> bytes:
        fd = self._kept.get(path)
        if fd is not None:
            try:
                return os.pread(fd, _MOST_BYTES, 0)
            except OSError:
                self._kept.drop(path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        is_kept = False
        try:
            content = os.pread(fd, _MOST_BYTES, 0)
            is_kept = self._kept.keep(path, fd)
        finally:
            if not is_kept:
                os.close(fd)
        return content


def _usage(pid: int, read: Callable[[str], bytes]) -> Usage | None:
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split(None, _USED_FIELDS)
        voluntary, involuntary = _switches(read(f"/proc/{pid}/status"))
        # By position: a page reads this of every process, and names take half as long again.
        return Usage(
            int(fields[19]),
            int(fields[11]) * _TICK,
            int(fields[12]) * _TICK,
            voluntary,
            involuntary,
            int(fields[17]),
            int(fields[21]) * _PAGE,
            ended=_has_ended(fields),
        )
    except (OSError, IndexError, ValueError):
        return None


def _switches(status: bytes) -> tuple[int, int]:
    """Return how often a process gave up the processor and how often it was taken away, from /proc/PID/status; 0 for a
    kernel that does not tell. Raises ``ValueError``.
    """
    at = status.rfind(_VOLUNTARY)
    if at < 0:
        return 0, 0
    # The lines of both are next to each other, and the last that all architectures have (fs/proc/array.c).
    words = status[at + len(_VOLUNTARY) :].split(None, 3)
    return int(words[0]), int(words[2]) if words[1:2] == [_INVOLUNTARY] else 0


def unique_memory(pid: int | str = "self") -> int:
    """Return the bytes that a process shares with no other (USS), from /proc/PID/smaps_rollup; raises ``OSError``.

    The kernel walks through all pages of the process for it, and holds the process up meanwhile.
    """
    with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
        return 1024 * sum(int(line.split()[1]) for line in rollup if line.startswith(b"Private_"))


def cpu_wait_ns() -> int | None:
    """Return the nanoseconds that this process's threads were ready but given no CPU; ``None`` if unknown.

    Second field of /proc/self/task/TID/schedstat (Linux, Documentation/scheduler/sched-stats).
    """
    total = 0
    try:
        for task in os.listdir("/proc/self/task"):
            # by the descriptor: a file object makes five more system calls
            fd = os.open(f"/proc/self/task/{task}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            try:
                total += int(os.read(fd, _MOST_BYTES).split()[1])
            finally:
                os.close(fd)
    except (OSError, IndexError, ValueError):
        return None
    return total


def boot_id() -> str:
    """Return what tells this boot of this host from others; raises ``OSError``."""
    # As bytes: a worker may have no right to import the module of another encoding, in an interpreter below /root.
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().decode().strip()
