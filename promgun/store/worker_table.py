"""What a master knows of the workers in its slots: a row of integers a slot, in a file that only masters can write.

A worker's board says what the worker reports of itself. This table has what must be true even if the worker is stuck,
stopped, dead or lying: since when it drains, when it ended, how much CPU its slot's earlier workers used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING

from promgun.store.descriptor import Descriptor

if TYPE_CHECKING:
    from promgun.system.procfs import Usage

#: The numbers of a row, in the order in which they lie in the file.
_NUMBERS = ("pid", "process_start", "forked", "draining", "ended", "user", "system", "voluntary", "involuntary",
            "worked", "owner_ended")  # fmt: skip
_ROW = Struct(f"={len(_NUMBERS)}q")
ROW_SIZE = _ROW.size
#: The number of slots with a row, more than any master has workers.
MOST_SLOTS = 4096
TABLE_SIZE = MOST_SLOTS * ROW_SIZE
_HIGHEST = 1 << 62
#: ``PID_MAX_LIMIT`` of 64-bit Linux
_HIGHEST_PID = 1 << 22


# No named tuple: making one takes ten times as long (CPython 3.11), and each start waits for it.
class WorkerRow:
    """The row of one slot.

    ``pid`` and ``process_start`` (ticks since boot) are its worker's; ``forked``, ``draining`` and ``ended`` are
    nanoseconds of the monotonic clock (0: not yet). ``owner_ended`` is when the owner before that worker ended (0: the
    master does not know). The rest is what ended workers of the slot used: CPU nanoseconds and context switches.
    """

    __slots__ = _NUMBERS

    def __init__(  # noqa: PLR0917 - in the order of the file
        self,
        pid: int = 0,
        process_start: int = 0,
        forked: int = 0,
        draining: int = 0,
        ended: int = 0,
        user: int = 0,
        system: int = 0,
        voluntary: int = 0,
        involuntary: int = 0,
        worked: int = 0,
        owner_ended: int = 0,
    ) -> None:
        self.pid = pid
        self.process_start = process_start
        self.forked = forked
        self.draining = draining
        self.ended = ended
        self.user = user
        self.system = system
        self.voluntary = voluntary
        self.involuntary = involuntary
        #: 1 once the slot has had a worker
        self.worked = worked
        self.owner_ended = owner_ended

    @property
    def numbers(self) -> tuple[int, ...]:
        """Its numbers as they lie in the file."""
        return tuple([getattr(self, name) for name in _NUMBERS])

    def __eq__(self, other: object) -> bool:
        return self.numbers == other.numbers if isinstance(other, WorkerRow) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.numbers)

    def having(self, **changes: int) -> WorkerRow:
        """Return a copy with these numbers changed."""
        row = WorkerRow(*self.numbers)
        for name, number in changes.items():
            setattr(row, name, number)
        return row

    def joined(self, other: WorkerRow) -> WorkerRow:
        """Combine what two masters know of a slot: usage is added up, the rest is from the master that forked last."""
        last = self if self.forked >= other.forked else other
        return last.having(
            user=self.user + other.user,
            system=self.system + other.system,
            voluntary=self.voluntary + other.voluntary,
            involuntary=self.involuntary + other.involuntary,
            worked=max(self.worked, other.worked),
        )


class WorkerTable:
    """The table as its one writer, a master, has it: rows in memory, each written to the file when it changes.

    The file is opened again by ``path`` if the application closes it; without ``fd`` there is none.
    """

    def __init__(self, fd: int = -1, path: Path = Path()) -> None:
        self._descriptor = Descriptor(fd) if fd >= 0 else None
        self._path = path
        self._rows = dict(parse_worker_table(_read(fd)))
        self._unwritten: set[int] = set()

    def __getitem__(self, slot: int) -> WorkerRow:
        return self._rows.get(slot, WorkerRow())

    def forked(self, slot: int, pid: int, process_start: int, now_ns: int, owner_ended_ns: int = 0) -> None:
        """Note that a worker was forked for a slot, whose owner before ended at ``owner_ended_ns``."""
        row = self[slot].having(pid=pid, process_start=process_start, forked=now_ns, draining=0, ended=0, worked=1)
        self._put(slot, row.having(owner_ended=owner_ended_ns))

    def draining(self, slot: int, now_ns: int) -> None:
        """Note that the slot's worker was asked to end; only the first call counts."""
        row = self[slot]
        if not row.draining:
            self._put(slot, row.having(draining=now_ns))

    def ended(self, slot: int, now_ns: int, usage: Usage | None) -> None:
        """Note that the slot's worker has ended and add what it used, in one change."""
        row = self[slot].having(ended=now_ns)
        if usage is not None:
            row = row.having(
                user=row.user + usage.user,
                system=row.system + usage.system,
                voluntary=row.voluntary + usage.voluntary,
                involuntary=row.involuntary + usage.involuntary,
            )
        self._put(slot, row)

    def _put(self, slot: int, row: WorkerRow) -> None:
        self._rows[slot] = row
        if 0 <= slot < MOST_SLOTS:
            self._unwritten.add(slot)
            self.flush()

    def close(self) -> None:
        """Close the file in a child, which must not hold it."""
        if self._descriptor is not None:
            self._descriptor.close()

    def flush(self) -> None:
        """Write out rows that could not be written before, e.g. because the disk was full; never raises."""
        if self._descriptor is None or not self._unwritten:
            return
        with suppress(OSError):
            fd = self._descriptor.of(self._path)
            for slot in list(self._unwritten):
                os.pwrite(fd, _ROW.pack(*self._rows[slot].numbers), slot * ROW_SIZE)
                self._unwritten.discard(slot)


def _read(fd: int) -> bytes:
    try:
        return os.pread(fd, TABLE_SIZE, 0)
    except OSError:
        return b""


def parse_worker_table(data: bytes) -> Iterator[tuple[int, WorkerRow]]:
    """Yield slot and row of every row in ``data`` that was ever written.

    Invalid numbers read 0; a row with a pid that no process can have is left out.
    """
    for slot, values in enumerate(_ROW.iter_unpack(data[: len(data) - len(data) % ROW_SIZE])):
        if any(values) and 0 <= values[0] <= _HIGHEST_PID:
            yield slot, WorkerRow(*(value if 0 <= value < _HIGHEST else 0 for value in values))
