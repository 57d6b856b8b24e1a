"""Running requests on the board."""

from __future__ import annotations

from promgun.store.running import END, REGIONS, Phase, RunningRequests, harmless, read_running


def fresh() -> tuple[bytearray, RunningRequests]:
    memory = bytearray(END)
    return memory, RunningRequests(memory)


def test_a_request_is_there_while_it_runs() -> None:
    memory, requests = fresh()
    region = requests.take(5, Phase.READING)
    (reading,) = read_running(memory)
    assert (reading.phase, reading.path) == (Phase.READING, "")
    requests.describe(region, 7, "GET\0/users/<id>\x00127.0.0.1\0abc\0/users/5")
    (running,) = read_running(memory)
    assert (running.start, running.phase) == (7, Phase.APPLICATION)
    assert (running.method, running.route, running.client) == ("GET", "/users/<id>", "127.0.0.1")
    assert (running.request_id, running.path) == ("abc", "/users/5")
    assert str(running) == "GET /users/5 from 127.0.0.1 request id abc"
    assert running.age(2_000_000_007) == 2.0
    requests.phase(region, Phase.WRITING)
    assert [request.phase for request in read_running(memory)] == [Phase.WRITING]
    requests.leave(region)
    assert not list(read_running(memory))


def test_a_region_taken_again_says_nothing_of_the_last_request() -> None:
    memory, requests = fresh()
    region = requests.take(1, Phase.READING)
    requests.describe(region, 1, "GET\0\0\0\0/secret")
    requests.leave(region)
    requests.take(2, Phase.QUEUED)
    (queued,) = read_running(memory)
    assert (queued.phase, queued.path) == (Phase.QUEUED, "")


def test_beyond_the_last_region_requests_go_untold() -> None:
    memory, requests = fresh()
    regions = [requests.take(1, Phase.READING) for _ in range(REGIONS + 2)]
    assert regions[-2:] == [-1, -1]
    requests.describe(-1, 1, "x")
    requests.phase(-1, Phase.WRITING)
    requests.leave(-1)
    assert len(list(read_running(memory))) == REGIONS
    for region in regions:
        requests.leave(region)
    assert requests.take(1, Phase.READING) >= 0


def test_long_and_odd_texts_are_cut_and_made_harmless() -> None:
    memory, requests = fresh()
    region = requests.take(1, Phase.READING)
    requests.describe(region, 1, "GET\0\0\0\0/" + "ä" * 500)
    (running,) = read_running(memory)
    assert running.path.startswith("/ää")
    assert len(running.path.encode()) <= 240
    requests.describe(region, 1, "GET\0\0\0\0/a\r\nX: \x1b[2J\u202e\udcff")
    (running,) = read_running(memory)
    assert running.path.isprintable()
    assert harmless("a\nb\x7fc") == "a?b?c"


def test_garbage_is_left_out() -> None:
    assert not list(read_running(b""))
    assert not list(read_running(bytes(100)))
    assert not list(read_running(b"\xff" * END))


def test_requests_move_with_the_board() -> None:
    memory, requests = fresh()
    region = requests.take(1, Phase.READING)
    target = bytearray(END)
    requests.move(target)
    requests.describe(region, 3, "GET\0\0\0\0/x")
    assert [request.path for request in read_running(target)] == ["/x"]
    assert not [request.path for request in read_running(memory) if request.path]
