"""When the metrics process is started again, and what the log says of it: real processes, a clock of the test's."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from promgun.endpoint import process as process_module
from promgun.endpoint import supervisor
from promgun.endpoint.process import EndpointConfig
from promgun.endpoint.supervisor import MetricsProcess
from tests.support.sandbox import wait_until

#: As often as a busy master's loop comes by.
STEP = 0.05


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def process(listener: socket.socket, clock: Clock, store: Path, **config: str) -> MetricsProcess:
    """Return a supervisor whose child, if it can be started, serves the store."""
    told = EndpointConfig(store=str(store), master_pid=os.getpid(), **config)  # type: ignore[arg-type]
    return MetricsProcess(told, [listener], logging.getLogger("test.supervisor"), clock)


def run(child: MetricsProcess, clock: Clock, seconds: float) -> None:
    """Let the master's loop come by for so long."""
    until = clock.now + seconds
    while clock.now < until:
        child.reap()
        child.ensure()
        clock.now += STEP


def seconds_until_another(child: MetricsProcess, clock: Clock) -> float:
    """Reap a process that has ended; return the seconds of the clock until there is another."""
    child.reap()
    died = clock.now
    while not child.pid:
        clock.now += STEP
        child.ensure()
    return clock.now - died


def test_one_that_cannot_be_started_is_tried_less_and_less(
    listener: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, attempts = Clock(), []

    def counted(config: EndpointConfig, sockets: tuple[socket.socket, ...]) -> object:
        attempts.append(clock.now)
        return process_module.spawn(config, sockets)

    monkeypatch.setattr(supervisor, "spawn", counted)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "replaced" / "python"))
    run(process(listener, clock, tmp_path), clock, 135.0)
    assert 5 <= len(attempts) <= 12, attempts
    assert max(later - earlier for earlier, later in pairwise(attempts)) <= 31
    assert len(caplog.records) <= 6, caplog.text
    assert caplog.text.count("No metrics have been served for") == 2
    assert "No such file" in caplog.records[-1].getMessage()


def end(child: MetricsProcess, *, kill: bool) -> None:
    """Wait until the child has ended, by SIGKILL or by itself."""
    if kill:
        os.kill(child.pid, signal.SIGKILL)
    pid = child.pid
    wait_until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))


@pytest.mark.unmeasured("it starts many interpreters, and measuring doubles what each costs")
def test_one_that_dies_at_birth_is_tried_less_and_less(listener: socket.socket, tmp_path: Path) -> None:
    clock = Clock()
    child = process(listener, clock, tmp_path, collector="no_such_module:Collector")
    pauses = []
    for _ in range(4):
        child.ensure()
        end(child, kill=False)
        pauses.append(seconds_until_another(child, clock))
    child.stop()
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 1.9


def test_one_that_has_lived_and_is_killed_again_and_again_is_back_at_once(
    listener: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    child = process(listener, clock, tmp_path)
    child.ensure()
    clock.now += 11.0
    for _ in range(10):
        end(child, kill=True)
        assert seconds_until_another(child, clock) <= 0.6
    child.stop()
    assert len(caplog.records) <= 5, caplog.text
