"""The order in which signals of the master are handled."""

from __future__ import annotations

from signal import SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGTTIN, SIGUSR1, SIGUSR2

import pytest

from promgun.master.signal_counts import in_order


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ([], []),
        ([SIGHUP], [SIGHUP]),
        ([SIGHUP, SIGHUP, SIGHUP], [SIGHUP]),
        ([SIGHUP, SIGHUP, SIGTERM, SIGHUP], [SIGTERM, SIGHUP]),
        ([SIGTTIN, SIGHUP, SIGCHLD, SIGHUP, SIGUSR1], [SIGTTIN, SIGCHLD, SIGHUP, SIGUSR1]),
        ([SIGCHLD, SIGTTIN, SIGTTIN, SIGINT], [SIGINT, SIGCHLD, SIGTTIN, SIGTTIN]),
        ([SIGHUP, SIGUSR2, SIGTERM], [SIGUSR2, SIGTERM, SIGHUP]),
        ([SIGTERM, SIGUSR2], [SIGTERM, SIGUSR2]),
        ([SIGHUP, SIGUSR2, SIGTTIN], [SIGHUP, SIGUSR2, SIGTTIN]),
    ],
)
def test_what_ends_goes_first_and_reloads_become_one(received: list[int], expected: list[int]) -> None:
    assert in_order(received) == expected
