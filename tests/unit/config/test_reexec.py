"""What one master leaves to the next."""

from __future__ import annotations

from promgun.config.reexec import GUNICORN_PID, VARIABLE, Handover


def test_round_trip() -> None:
    handover = Handover("/dev/shm/x", private=True, listeners=(5, 6))  # noqa: S108 - a name only
    environment = {GUNICORN_PID: "1"}
    handover.to_environment(environment)
    assert Handover.from_environment(environment) == handover
    assert VARIABLE not in environment


def test_only_a_master_that_was_executed_by_another_takes_it() -> None:
    environment: dict[str, str] = {}
    Handover("/x", private=False, listeners=()).to_environment(environment)
    assert Handover.from_environment(environment) is None
    assert VARIABLE not in environment
    assert Handover.from_environment({GUNICORN_PID: "1"}) is None
