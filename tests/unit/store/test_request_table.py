"""Running requests on the board."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from promgun.store.request_table import (
    BUSY,
    END,
    NOWHERE,
    PHASE,
    REGION_SIZE,
    REGIONS,
    START,
    STATUS_SHIFT,
    Phase,
    RunningRequests,
    busy_cells,
    harmless,
    read_running,
)
from tests.support.boards import enter_phase, leave, name_route, occupy, tell


def fresh() -> tuple[bytearray, RunningRequests]:
    memory = bytearray(END)
    return memory, RunningRequests(memory)


def test_a_request_is_there_while_it_runs() -> None:
    memory, requests = fresh()
    region = occupy(requests, 5, Phase.READING)
    (reading,) = read_running(memory)
    assert (reading.phase, reading.path) == (Phase.READING, "")
    tell(requests, region, 7, "GET\0/users/<id>\x00127.0.0.1\0abc\0/users/5")
    (running,) = read_running(memory)
    assert (running.start, running.phase) == (7, Phase.APPLICATION)
    assert (running.method, running.route, running.client) == ("GET", "/users/<id>", "127.0.0.1")
    assert (running.request_id, running.path) == ("abc", "/users/5")
    assert str(running) == "GET /users/5 from 127.0.0.1 request id abc"
    assert running.age(2_000_000_007) == 2.0
    enter_phase(requests, region, Phase.WRITING)
    assert [request.phase for request in read_running(memory)] == [Phase.WRITING]
    requests.cells[region + PHASE] |= 206 << STATUS_SHIFT
    (streaming,) = read_running(memory)
    assert (streaming.phase, streaming.status, streaming.path) == (Phase.WRITING, 206, "/users/5")
    leave(requests, region)
    assert not list(read_running(memory))


@pytest.mark.parametrize("cell", [-1, 0, 6, 255, Phase.WRITING | 1000 << STATUS_SHIFT, (1 << 63) - 1, -(1 << 63)])
def test_a_phase_or_a_status_that_cannot_be_is_no_request(cell: int) -> None:
    memory, requests = fresh()
    region = occupy(requests, 5, Phase.READING)
    requests.cells[region + PHASE] = cell
    assert not list(read_running(memory))


def test_a_region_taken_again_says_nothing_of_the_last_request() -> None:
    memory, requests = fresh()
    region = occupy(requests, 1, Phase.READING)
    tell(requests, region, 1, "GET\0\0\0\0/secret")
    leave(requests, region)
    occupy(requests, 2, Phase.QUEUED)
    (queued,) = read_running(memory)
    assert (queued.phase, queued.path) == (Phase.QUEUED, "")


def test_beyond_the_last_region_requests_go_untold() -> None:
    memory, requests = fresh()
    regions = [occupy(requests, 1, Phase.READING) for _ in range(REGIONS + 2)]
    assert regions[-2:] == [NOWHERE, NOWHERE]
    leave(requests, NOWHERE)
    assert len(list(read_running(memory))) == REGIONS
    for region in regions:
        leave(requests, region)
    assert occupy(requests, 1, Phase.READING) >= 0


def test_long_and_odd_texts_are_cut_and_made_harmless() -> None:
    memory, requests = fresh()
    region = occupy(requests, 1, Phase.READING)
    tell(requests, region, 1, "GET\0\0\0\0/" + "ä" * 500)
    (running,) = read_running(memory)
    assert running.path.startswith("/ää")
    assert len(running.path.encode()) <= 232
    tell(requests, region, 1, "GET\0\0\0\0/a\r\nX: \x1b[2J\u202e\udcff")
    (running,) = read_running(memory)
    assert running.path.isprintable()
    assert harmless("a\nb\x7fc") == "a?b?c"


def test_half_a_route_is_never_read() -> None:
    memory, requests = fresh()
    region = occupy(requests, 1, Phase.READING)
    tell(requests, region, 1, "GET\0\x00192.0.2.1\0abc\0/" + "x" * 300)
    before, begin = bytes(memory), region * 8
    name_route(requests, region, "/users/<int:id>")
    after = bytes(memory)
    routes = []
    # Killed at any byte: they are written in their order.
    for killed_at in range(begin, begin + REGION_SIZE + 1):
        (running,) = read_running(after[:killed_at] + before[killed_at:])
        routes.append(running.route)
        assert (running.method, running.client, running.request_id) == ("GET", "192.0.2.1", "abc")
        assert running.path.startswith("/xxx")
    assert set(routes) == {"", "/users/<int:id>"}


@pytest.mark.parametrize("route", ["/shop/<id>", "/a", "", "/" + "ä" * 200, "/catalogue/<section>/<article>"])
def test_a_route_that_is_named_anew_leaves_nothing_of_the_former(route: str) -> None:
    memory, requests = fresh()
    region = occupy(requests, 1, Phase.READING)
    tell(requests, region, 1, "GET\0/users/<int:id>\x00192.0.2.1\0abc\0/u")
    requests.forget_route(region, "/users/<int:id>")
    (running,) = read_running(memory)
    assert (running.route, running.path) == ("", "/u")
    name_route(requests, region, route)
    (running,) = read_running(memory)
    # A route of more than 180 bytes is not shown.
    assert (running.route, running.path) == (route if len(route) < 180 else "", "/u")


def test_garbage_is_left_out() -> None:
    assert not list(read_running(b""))
    assert not list(read_running(bytes(100)))
    assert not list(read_running(b"\xff" * END))


def test_requests_move_with_the_board() -> None:
    memory, requests = fresh()
    region = occupy(requests, 1, Phase.READING)
    target = bytearray(END)
    requests.move(target)
    tell(requests, region, 3, "GET\0\0\0\0/x")
    assert [request.path for request in read_running(target)] == ["/x"]
    assert not [request.path for request in read_running(memory) if request.path]


def test_one_store_begins_a_request_and_one_ends_it() -> None:
    memory, requests = fresh()
    first, second = occupy(requests, 1, Phase.READING), occupy(requests, 1, Phase.READING)
    requests.cells[first + BUSY] -= 1000
    assert busy_cells(memory)[:2] == (-1000, 0)
    requests.cells[second + BUSY] -= 1500
    requests.cells[first + BUSY] += 1700
    assert busy_cells(memory)[:2] == (700, -1500)
    assert len(busy_cells(memory)) == REGIONS
    assert busy_cells(memory[:-1]) == ()


class Interrupted:
    """Cells to which another thread writes just after they were copied."""

    def __init__(self, cells: Any, write: Callable[[Any], None]) -> None:
        self._cells = cells
        self._write = write

    def __getitem__(self, at: Any) -> Any:
        if not isinstance(at, slice):
            return self._cells[at]
        copy = bytes(self._cells[at])
        self._write(self._cells)
        return copy


def test_what_threads_still_write_to_the_old_memory_moves_too() -> None:
    _, requests = fresh()
    ending, beginning, running = (occupy(requests, number, Phase.READING) for number in (1, 2, 3))
    requests.cells[ending + BUSY] = 500 - 1000
    requests.cells[running + BUSY] = -3000

    def meanwhile(cells: Any) -> None:
        cells[ending + BUSY] += 1700
        cells[ending + START] = 0
        cells[beginning + BUSY] -= 2000

    requests.cells = Interrupted(requests.cells, meanwhile)  # type: ignore[assignment] # what move asks of cells
    target = bytearray(END)
    requests.move(target)
    assert busy_cells(target)[:3] == (1200, -2000, -3000)
    assert [request.start for request in read_running(target)] == [2, 3]
