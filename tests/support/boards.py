"""Running requests on a board, written down as a worker writes them (``promgun.workers._instrumentation``)."""

from __future__ import annotations

from promgun.store.board import Board
from promgun.store.request_table import BUSY, NOWHERE, PHASE, ROUTE_MARK, START, Phase, RunningRequests, describe


def occupy(requests: RunningRequests, start: int, phase: Phase) -> int:
    """Write down that a request is read or queued; return its region, ``NOWHERE`` beyond the last one."""
    if not requests.free:
        return NOWHERE
    region = requests.free.pop()
    requests.cells[region + PHASE] = phase
    requests.cells[region + START] = start
    return region


def leave(requests: RunningRequests, region: int) -> None:
    """Free a region."""
    if region >= 0:
        requests.cells[region + START] = 0
        requests.free.append(region)


def name_route(requests: RunningRequests, region: int, route: str) -> None:
    """Write down a request's route."""
    write, start, data = requests.place_route(route)
    write(requests.cells, region * 8 + start, data, ROUTE_MARK)


def tell(requests: RunningRequests, region: int, start: int, text: str) -> None:
    """Write down what a request is: method, route, client, request id and path, separated by NUL."""
    method, _, rest = text.partition("\0")
    route, separator, rest = rest.partition("\0")
    describe(
        requests.cells, region * 8, f"{method}{separator}{rest}".encode("utf-8", "replace"), Phase.APPLICATION, start
    )
    if route:
        name_route(requests, region, route)


def enter_phase(requests: RunningRequests, region: int, phase: Phase) -> None:
    """Write down how far a request has come."""
    requests.cells[region + PHASE] = phase


def begin(board: Board, start: int, text: str = "") -> int:
    """Write down that a request begins, and what it is; return its region, ``NOWHERE`` beyond the last one."""
    region = occupy(board.requests, start, Phase.READING)
    if region < 0:
        board.enter(start)
        return region
    board.requests.cells[region + BUSY] -= start
    if text:
        tell(board.requests, region, start, text)
    return region


def finish(board: Board, region: int, now: int) -> None:
    """Write down that a request ends."""
    if region < 0:
        board.leave(now)
        return
    board.requests.cells[region + BUSY] += now
    leave(board.requests, region)
