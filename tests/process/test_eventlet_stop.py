"""How the eventlet worker stops: requests in flight, idle clients, uploads, the graceful timeout."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support.eventlet_server import GET, alive, answer, closed, established, in_flight, refused, serve, until

pytestmark = [pytest.mark.seam, pytest.mark.unmeasured("its clients time what the worker does")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_requests_in_flight_are_finished(tmp_path: Path, number: signal.Signals) -> None:
    with serve(tmp_path) as server, in_flight(server, "/sleep?seconds=1.5", count=3) as answers:
        (worker,) = server.workers()
        server.send(number)
        until(lambda: not psutil.pid_exists(worker), "the worker's end")
    assert [status for status, _ in answers] == [200] * 3
    assert "graceful timeout" not in server.text


def test_a_full_worker_finishes_its_client_and_takes_none_it_cannot_serve(tmp_path: Path) -> None:
    with serve(tmp_path, "--worker-connections=1") as server:
        with in_flight(server, "/sleep?seconds=1") as answers, server.connect() as waiting:
            waiting.sendall(GET)
            server.send(signal.SIGHUP)
            assert answer(waiting)[0].status == 200
        assert [status for status, _ in answers] == [200]


def test_after_a_reload_to_another_address_the_old_one_refuses(tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text("bind = '127.0.0.1:0'\n")
    with serve(tmp_path, "--config", str(config), bind="") as server:
        with in_flight(server, "/sleep?seconds=2") as answers:
            config.write_text(f"bind = 'unix:{tmp_path}/app.sock'\n")
            server.send(signal.SIGHUP)
            until(lambda: refused(server), "the old address refuses", 1.8)
        assert [status for status, _ in answers] == [200]


def test_idle_clients_do_not_hold_up_the_stop(tmp_path: Path) -> None:
    with serve(tmp_path, "--keep-alive=60") as server, server.connect() as idle, server.connect() as silent:
        idle.sendall(GET)
        answer(idle)
        server.send(signal.SIGTERM)
        assert server.ended() < 20
        assert closed(idle)
        assert closed(silent)


def test_a_busy_keep_alive_client_is_told_to_close_and_not_cut(tmp_path: Path) -> None:
    with serve(tmp_path, "--keep-alive=60") as server, server.connect() as sock:
        sock.sendall(GET)
        answer(sock)
        server.send(signal.SIGTERM)

        def told_to_close() -> bool:
            time.sleep(0.05)
            sock.sendall(GET)
            response, _ = answer(sock)
            assert response.status == 200
            return response.getheader("Connection") == "close"

        until(told_to_close, "Connection: close")
        assert server.ended() < 20


def test_an_upload_under_way_is_read_to_its_end(tmp_path: Path) -> None:
    with serve(tmp_path) as server, server.connect() as sock:
        sock.sendall(b"POST /upload HTTP/1.1\r\nHost: t\r\nContent-Length: 8\r\n\r\n1234")
        until(lambda: established(server) == 1, "accepted")
        server.send(signal.SIGTERM)
        until(lambda: refused(server), "stopping")
        time.sleep(1.5)  # longer than a client without a request is left
        sock.sendall(b"5678")
        assert answer(sock)[1] == b"8"


def test_after_graceful_timeout_the_rest_is_cut(tmp_path: Path) -> None:
    with serve(tmp_path, "--graceful-timeout=1") as server:
        with in_flight(server, "/sleep?seconds=30") as answers:
            server.send(signal.SIGHUP)
            server.said("Worker graceful timeout")
        assert answers == []
        assert server.get()[0] == 200


def test_a_draining_worker_goes_on_showing_signs_of_life(tmp_path: Path) -> None:
    with serve(tmp_path, "--timeout=4") as server:
        with in_flight(server, "/sleep?seconds=8") as answers:
            (worker,) = server.workers()
            os.kill(worker, signal.SIGTERM)  # during a reload the master waits and looks at no timeout
        assert [status for status, _ in answers] == [200]
        assert "WORKER TIMEOUT" not in server.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_waits_for_nobody(tmp_path: Path, number: signal.Signals) -> None:
    with serve(tmp_path) as server:
        with in_flight(server, "/sleep?seconds=30") as answers:
            server.send(number)
            assert server.ended() < 20
        assert answers == []
        assert "Traceback" not in server.text


def test_orphans_leave(tmp_path: Path) -> None:
    with serve(tmp_path, "--workers=2") as server:
        until(lambda: len({server.get()[1] for _ in range(5)}) == 2, "both workers answering")
        workers = server.workers()
        server.send(signal.SIGKILL)
        until(lambda: not any(map(alive, workers)), "the workers' end", 5)


def test_usr1_reopens_the_log_files(tmp_path: Path) -> None:
    access = tmp_path / "access.log"
    with serve(tmp_path, f"--access-logfile={access}") as server:
        server.get("/before")
        access.rename(tmp_path / "access.log.1")
        server.send(signal.SIGUSR1)
        until(access.exists, "a new file")

        def logged() -> bool:
            server.get("/after")
            return "/after" in access.read_text()

        until(logged, "a request in the new file")
        assert "/before" in (tmp_path / "access.log.1").read_text()
