"""Who is counted for whom, and who leaves for whom."""

from __future__ import annotations

import resource
import socket
from typing import TYPE_CHECKING, Any

import pytest

from promgun.endpoint.connection_limit import ConnectionTable, address_of
from promgun.endpoint.limits import RESERVED_FILES, Limits, raise_open_files
from promgun.system.kept_files import MOST_KEPT

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeClient:
    """A connection as the table sees it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_evicted = False

    def evict(self) -> None:
        self.is_evicted = True

    def retire(self) -> None:
        raise AssertionError("the table of connections retires nobody")


class House:
    """A table with a clock that the test turns."""

    def __init__(self, connections: int) -> None:
        self.now = 0.0
        self.connections = ConnectionTable(Limits(connections=connections, grace_seconds=1), lambda: self.now)

    def waiting(self, address: str) -> FakeClient:
        self.now += 1
        client = FakeClient(address)
        self.connections.enter(client)
        self.connections.start_waiting(client)
        return client


@pytest.mark.parametrize(
    ("family", "peer", "address"),
    [
        (socket.AF_UNIX, "", ""),
        (socket.AF_INET, ("192.0.2.1", 5), "192.0.2.1"),
        (socket.AF_INET6, ("2001:db8:1:2:3:4:5:6", 5, 0, 0), "20010db800010002"),
        (socket.AF_INET6, ("2001:db8:1:2::", 5, 0, 0), "20010db800010002"),
        (socket.AF_INET6, ("fe80::1%eth0", 5, 0, 2), "fe80000000000000"),
        (socket.AF_INET6, ("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
    ],
)
def test_connections_are_counted_by_network(family: int, peer: Any, address: str) -> None:
    assert address_of(family, peer) == address


def test_newcomer_takes_the_place_of_the_longest_waiting_of_the_greediest() -> None:
    house = House(5)
    modest = house.waiting("modest")
    greedy = [house.waiting("greedy") for _ in range(4)]
    house.waiting("newcomer")
    assert [client.is_evicted for client in (modest, *greedy)] == [False, True, False, False, False]


def test_those_who_are_served_are_never_sent_away() -> None:
    house = House(2)
    served = house.waiting("a"), house.waiting("a")
    for client in served:
        house.connections.stop_waiting(client)
    assert not house.connections.has_room()
    house.connections.leave(served[0])
    assert house.connections.has_room()


def test_waiting_starts_anew_with_each_move() -> None:
    house = House(2)
    first, second = house.waiting("a"), house.waiting("a")
    house.connections.stop_waiting(first)
    house.connections.start_waiting(first)
    house.waiting("a")
    assert (first.is_evicted, second.is_evicted) == (False, True)


def test_the_young_are_spared() -> None:
    house = House(1)
    client = house.waiting("a")
    house.now += 0.5
    assert not house.connections.has_room()
    house.now += 0.5
    assert house.connections.has_room()
    assert not client.is_evicted


def test_who_left_does_not_come_back_by_waiting() -> None:
    house = House(1)
    client = house.waiting("a")
    house.connections.leave(client)
    house.connections.leave(client)
    house.connections.start_waiting(client)
    assert not list(house.connections)
    assert house.connections.is_empty.is_set()
    house.waiting("b")
    assert not house.connections.is_empty.is_set()


def test_places_go_round_when_it_gets_crowded() -> None:
    house = House(4)
    crowded = []
    for _ in range(4):
        house.waiting("a")
        crowded.append(house.connections.is_crowded)
    assert crowded == [False, False, True, True]


@pytest.fixture
def open_files() -> Iterator[tuple[int, int]]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield limits
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_connections_leave_room_for_other_files(open_files: tuple[int, int]) -> None:
    _, hard = open_files
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
    assert Limits().within_open_files().connections == 500 - RESERVED_FILES - 500 // 3
    assert Limits(connections=7).within_open_files().connections == 7
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    raise_open_files(Limits(connections=300))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300 + RESERVED_FILES + MOST_KEPT
    raise_open_files(Limits(connections=1))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300 + RESERVED_FILES + MOST_KEPT
