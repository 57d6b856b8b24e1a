"""No interval shows more than what happened in it, however workers are born and die between two snapshots."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from promgun.status.history import History
from promgun.status.snapshot import Details, SlotTotals, Snapshot, Worker

_SLIGHTLY = 1e-6


@dataclass
class _Living:
    """A worker as it is: how many requests it runs at once, and since when it lives."""

    capacity: int
    born: float
    running: int = 0
    using: float = 0.0


@dataclass
class Server:
    """An instance with a clock of its own, whose workers come and go; what really happened is written down."""

    forgetful: bool
    now: float = 0.0
    living: dict[int, _Living] = field(default_factory=dict)
    totals: dict[int, SlotTotals] = field(default_factory=dict)
    happened: SlotTotals = field(default_factory=SlotTotals)
    room: float = 0.0

    def spend(self, seconds: float) -> None:
        """Let time pass: each worker works at what it has."""
        self.now += seconds
        for slot, worker in self.living.items():
            self._add(slot, SlotTotals(0.0, worker.running * seconds, worker.using * seconds))
            self.room += worker.capacity * seconds

    def answer(self, slot: int) -> None:
        """Have a worker answer a request."""
        self._add(slot, SlotTotals(requests=1.0))

    def _add(self, slot: int, more: SlotTotals) -> None:
        self.totals[slot] = _sum(self.totals.get(slot, SlotTotals()), more)
        self.happened = _sum(self.happened, more)

    def look(self) -> Snapshot:
        """Return what an observer sees; of a forgetful server only the slots that have a worker."""
        workers = {
            slot: Worker(worker_id=slot, state="busy", capacity=worker.capacity, uptime=self.now - worker.born)
            for slot, worker in self.living.items()
        }
        return Snapshot(
            taken=self.now,
            at=self.now,
            up=True,
            uptime=self.now,
            info={},
            target=len(workers),
            workers=workers,
            slots={slot: total for slot, total in self.totals.items() if slot in workers or not self.forgetful},
            requests={"200": sum(total.requests for total in self.totals.values())},
            durations={},
            queues=(),
            exits={},
            details=Details(),
        )


def _sum(one: SlotTotals, other: SlotTotals) -> SlotTotals:
    return SlotTotals(one.requests + other.requests, one.busy + other.busy, one.cpu + other.cpu)


def _act(server: Server, chance: random.Random) -> None:
    slot = chance.randint(1, 4)
    worker = server.living.get(slot)
    if worker is None:
        server.living[slot] = _Living(chance.choice((1, 1, 4)), server.now)
        server.totals.setdefault(slot, SlotTotals())
        return
    match chance.choice(("die", "work", "work", "answer", "answer")):
        case "die":
            del server.living[slot]
        case "work":
            worker.running = chance.randint(0, worker.capacity)
            worker.using = chance.random()
        case "answer":
            server.answer(slot)


@pytest.mark.parametrize("forgetful", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_no_interval_shows_more_than_happened_in_it(seed: int, *, forgetful: bool) -> None:
    chance = random.Random(seed)
    server = Server(forgetful=forgetful)
    history = History()
    history.add(server.look())
    for _ in range(60):
        before = server.happened
        for _ in range(chance.randint(0, 12)):
            _act(server, chance)
            server.spend(chance.choice((0.0, 0.01, 0.3, 2.0)))
        server.spend(0.2)
        interval = history.add(server.look())
        assert interval is not None
        seconds = interval.seconds
        workers = interval.workers.values()
        told = SlotTotals(
            sum(worker.requests_per_second for worker in workers) * seconds,
            sum((worker.utilisation or 0.0) for worker in workers),
            sum(worker.cpu_share for worker in workers) * seconds,
        )
        # What a forgetful server does not tell of the dead shows with the next worker of the slot, once.
        real = server.happened if forgetful else _sum(server.happened, SlotTotals(*(-part for part in _parts(before))))
        assert told.requests <= real.requests + _SLIGHTLY
        assert told.cpu <= real.cpu + _SLIGHTLY
        assert (interval.utilisation or 0.0) <= 1 + _SLIGHTLY, f"{100 * (interval.utilisation or 0):.0f} %"
        assert all((worker.utilisation or 0.0) <= 1 + _SLIGHTLY for worker in workers)


def _parts(totals: SlotTotals) -> tuple[float, float, float]:
    return totals.requests, totals.busy, totals.cpu


@pytest.mark.parametrize("forgetful", [False, True])
def test_a_slot_without_a_worker_in_one_snapshot_does_not_show_its_past_again(*, forgetful: bool) -> None:
    server = Server(forgetful=forgetful, living={1: _Living(1, 0.0), 2: _Living(1, 0.0, running=1, using=0.5)})
    history = History()
    server.spend(20.0)
    for _ in range(4):
        server.answer(2)
    history.add(server.look())
    del server.living[2]
    for _ in range(3):
        server.spend(1.0)
        history.add(server.look())
    server.living[2] = _Living(1, server.now)
    server.spend(1.0)
    interval = history.add(server.look())
    assert interval is not None
    assert interval.utilisation == 0
    assert (interval.workers[2].requests_per_second, interval.workers[2].cpu_share) == (0, 0)


def test_workers_that_end_were_there_while_they_worked() -> None:
    server = Server(forgetful=False, living={slot: _Living(1, 0.0, running=1) for slot in range(1, 5)})
    history = History()
    history.add(server.look())
    server.spend(0.9)
    for slot in (2, 3, 4):
        del server.living[slot]
    server.living[1].running = 0
    server.spend(0.1)
    interval = history.add(server.look())
    assert interval is not None
    assert interval.utilisation == pytest.approx(0.9), "four were busy for 0.9 s, and one is left"
