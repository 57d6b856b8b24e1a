"""What Gunicorn's last eventlet worker did, done by promgun's own under a real master and real sockets."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from tests.support.eventlet_server import DEADLINE, GET, answer, closed, polled, serve, until

pytestmark = [pytest.mark.seam, pytest.mark.unmeasured("its clients time what the worker does")]


# Cooperation: patched in the worker only, a hub of its own


def test_the_master_stays_unpatched_and_the_application_loads_patched(tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text(
        "def pre_fork(server, worker):\n"
        "    from eventlet import patcher\n"
        "    patched = [name for name in ('os', 'socket', 'thread') if patcher.is_monkey_patched(name)]\n"
        "    server.log.info('patched before the fork: %s', patched)\n"
    )
    with serve(tmp_path, "--config", str(config)) as server:
        assert server.get("/patched") == (200, b"True")
        server.said("patched before the fork: []")


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
def test_forty_sleeping_requests_take_the_time_of_one(tmp_path: Path, preload: list[str]) -> None:
    with serve(tmp_path, *preload) as server, ThreadPoolExecutor(40) as pool:
        server.get()
        begun = time.monotonic()
        answers = list(pool.map(server.get, ["/sleep?seconds=0.5"] * 40))
        assert time.monotonic() - begun < 15  # one after the other they take 20
    assert [status for status, _ in answers] == [200] * 40


def test_each_worker_has_its_own_hub_when_the_master_had_one(tmp_path: Path) -> None:
    with serve(tmp_path, "--preload", "--workers=2", USE_HUB_AT_IMPORT="1") as server:
        until(lambda: len({server.get()[1] for _ in range(5)}) == 2, "both workers answering")
        # Each worker waits for its own wakeup pipe: with one hub for both, each would wait for both pipes.
        first, second = server.workers()
        until(lambda: polled(first) - polled(second) and polled(second) - polled(first), "two hubs")


# HTTP


def test_http_11_keeps_the_connection_until_it_is_idle_for_the_keepalive_time(tmp_path: Path) -> None:
    with serve(tmp_path, "--keep-alive=1") as server, server.connect() as sock:
        for _ in range(3):
            sock.sendall(GET)
            assert answer(sock)[0].status == 200
        begun = time.monotonic()
        assert closed(sock)
        assert 0.5 < time.monotonic() - begun < 30  # 75 s is how long a client is left at most


def test_a_default_timeout_of_the_application_is_not_the_clients(tmp_path: Path) -> None:
    with serve(tmp_path, DEFAULT_TIMEOUT="0.1") as server, server.connect() as sock:
        for pause in (0, 0.5):
            time.sleep(pause)
            sock.sendall(GET)
            assert answer(sock)[0].status == 200


def test_without_keepalive_each_answer_ends_its_connection(tmp_path: Path) -> None:
    with serve(tmp_path, "--keep-alive=0") as server, server.connect() as sock:
        sock.sendall(GET)
        assert answer(sock)[0].getheader("Connection") == "close"
        assert closed(sock)


def test_http_10_closes_unless_asked_to_keep_the_connection(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        with server.connect() as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert answer(sock)[0].status == 200
            assert closed(sock)
        with server.connect() as sock:
            for _ in range(2):
                sock.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert answer(sock)[0].getheader("Connection") == "keep-alive"


def test_pipelined_requests_and_a_chunked_upload_are_answered_in_order(tmp_path: Path) -> None:
    upload = b"POST /upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    with serve(tmp_path) as server, server.connect() as sock:
        sock.sendall(upload + b"GET /patched HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: sock.recv(4096), b""))
    answers = received.split(b"HTTP/1.1 200 OK")[1:]
    assert [part.partition(b"\r\n\r\n")[2] for part in answers] == [b"5", b"True"]


def test_an_application_that_answers_on_the_socket_itself_is_left_alone(tmp_path: Path) -> None:
    with serve(tmp_path) as server, server.connect() as sock:
        sock.sendall(GET.replace(b"/ ", b"/handled "))
        assert answer(sock)[1] == b"mine"
        assert closed(sock)
        assert "Error" not in server.text


# sendfile


def test_sendfile_is_exact_and_a_slow_reader_delays_nobody(tmp_path: Path) -> None:
    content = os.urandom(5 << 20)
    (tmp_path / "data").write_bytes(content)
    path = f"/file?path={tmp_path}/data&offset=777&length={len(content) - 777}"
    with serve(tmp_path) as server, server.connect() as slow:
        slow.sendall(GET.replace(b"/ ", f"{path} ".encode()))
        assert slow.recv(1, socket.MSG_PEEK) == b"H"
        assert server.get(path) == (200, content[777:])
        assert answer(slow)[1] == content[777:]


def test_a_file_that_sendfile_refuses_is_read_instead(tmp_path: Path) -> None:
    with (
        Path("/proc/self/maps").open("rb") as file,
        socket.socket() as out,
        pytest.raises(OSError) as refused,
    ):
        os.sendfile(out.fileno(), file.fileno(), 0, 100)
    assert refused.value.errno == errno.EINVAL
    with serve(tmp_path) as server:
        status, body = server.get("/file?path=/proc/self/maps&length=500")
        assert (status, len(body)) == (200, 500)
        assert "Error" not in server.text


# Listeners


def test_several_listeners_one_of_them_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with serve(tmp_path, f"--bind=unix:{path}", "--bind=127.0.0.1:0") as server:
        first, unix, second = server.addresses()
        assert unix == f"unix:{path}"
        for address in (first, second):
            server.port = int(address.rpartition(":")[2])
            assert server.get()[0] == 200
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(GET)
            assert answer(sock)[0].status == 200
        server.send(signal.SIGTERM)
        server.ended()
    assert not path.exists()


def test_reuse_port_gives_each_worker_a_listener_of_its_own(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{reserved.getsockname()[1]}"
        with serve(tmp_path, "--reuse-port", "--workers=2", bind=bind) as server:

            def answering() -> set[bytes]:
                with suppress(ConnectionRefusedError):
                    return {server.get()[1] for _ in range(8)}
                return set()

            until(lambda: len(answering()) == 2, "both workers answering")


# Limits


def test_worker_connections_bounds_the_clients_served_at_once(tmp_path: Path) -> None:
    options = ["--worker-connections=2", "--bind=127.0.0.1:0", "--keep-alive=30"]
    with serve(tmp_path, *options) as server, ExitStack() as stack:
        one, two, three = (stack.enter_context(server.connect()) for _ in range(3))
        for sock in (one, two):
            sock.sendall(GET)
            assert answer(sock)[0].status == 200
        three.sendall(GET)
        three.settimeout(0.5)
        with pytest.raises(TimeoutError):
            three.recv(1)
        one.close()
        three.settimeout(DEADLINE)
        assert answer(three)[0].status == 200


def test_a_full_worker_leaves_clients_to_the_other_one(tmp_path: Path) -> None:
    options = ["--worker-connections=1", "--workers=2", "--keep-alive=30"]
    with serve(tmp_path, *options) as server, server.connect() as one, server.connect() as two:
        pids = set()
        for sock in (one, two):
            sock.sendall(GET)
            pids.add(answer(sock)[1])
        assert len(pids) == 2


def test_max_requests_replaces_the_worker_without_losing_a_request(tmp_path: Path) -> None:
    with serve(tmp_path, "--max-requests=5") as server:
        answers = []

        def replaced() -> bool:
            answers.append(server.get())
            return len({pid for _, pid in answers}) >= 2

        until(replaced, "a second worker")
        assert {status for status, _ in answers} == {200}
        assert "Autorestarting worker" in server.text


def test_running_out_of_descriptors_is_survived(tmp_path: Path) -> None:
    with serve(tmp_path, "--keep-alive=30") as server:
        server.get()
        (worker,) = server.workers()
        used = max(int(number) for number in os.listdir(f"/proc/{worker}/fd"))
        psutil.Process(worker).rlimit(psutil.RLIMIT_NOFILE, (used + 4, used + 4))
        with ExitStack() as stack:
            for _ in range(12):
                stack.enter_context(server.connect())
            server.said("Cannot accept a client")
            before = sum(psutil.Process(worker).cpu_times()[:2])
            time.sleep(0.5)
            assert sum(psutil.Process(worker).cpu_times()[:2]) - before < 0.25
        assert server.get() == (200, str(worker).encode())
