"""Orders and counts the master's signals: those that end it come first, and pending reloads become one.

Signals are counted where Gunicorn handles them, in the main loop, by ``handle_<signal>``.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from promgun.metrics.families.master import MASTER_SIGNALS
from promgun.metrics.label_values import MasterSignal

#: Signals that end the master: of what else is pending only an upgrade matters.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def in_order(received: Sequence[int]) -> list[int]:
    """Return signals in the order to handle them: ending ones first, and of several SIGHUP only the last.

    The last reload reads whatever the others would have read. A SIGUSR2 that came before what ends the master stays
    before it: the new master goes on where this one ends.
    """
    ends = next((place for place, number in enumerate(received) if number in _ENDING), 0)
    upgrades = [number for number in received[:ends] if number == signal.SIGUSR2]
    ending = [number for number in received if number in _ENDING]
    rest = [number for number in received[:ends] if number != signal.SIGUSR2]
    rest += [number for number in received[ends:] if number not in _ENDING]
    last = max((place for place, number in enumerate(rest) if number == signal.SIGHUP), default=-1)
    return upgrades + ending + [number for place, number in enumerate(rest) if number != signal.SIGHUP or place == last]


class CountsSignals:
    """Overrides the arbiter's handlers, which are found by name (gunicorn 25.3 to 27.0 ``Arbiter.run``)."""

    instruments: Any

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Wait as Gunicorn does; reloads that are merged are counted here, because nothing handles them."""
        received = super().wait_for_signals(timeout)  # type: ignore[misc] # the next class in the MRO, the Arbiter
        ordered = in_order(received)
        for _ in range(len(received) - len(ordered)):
            self.instruments.counters.inc(MASTER_SIGNALS, (MasterSignal.HUP,))
        return ordered

    def _counted(self, name: MasterSignal) -> None:
        self.instruments.counters.inc(MASTER_SIGNALS, (name,))
        getattr(super(), f"handle_{name}")()

    def handle_hup(self) -> None:
        """Count and handle SIGHUP."""
        self._counted(MasterSignal.HUP)

    def handle_int(self) -> None:
        """Count and handle SIGINT."""
        self._counted(MasterSignal.INT)

    def handle_quit(self) -> None:
        """Count and handle SIGQUIT."""
        self._counted(MasterSignal.QUIT)

    def handle_term(self) -> None:
        """Count and handle SIGTERM."""
        self._counted(MasterSignal.TERM)

    def handle_ttin(self) -> None:
        """Count and handle SIGTTIN."""
        self._counted(MasterSignal.TTIN)

    def handle_ttou(self) -> None:
        """Count and handle SIGTTOU."""
        self._counted(MasterSignal.TTOU)

    def handle_usr1(self) -> None:
        """Count and handle SIGUSR1."""
        self._counted(MasterSignal.USR1)

    def handle_usr2(self) -> None:
        """Count and handle SIGUSR2."""
        self._counted(MasterSignal.USR2)

    def handle_winch(self) -> None:
        """Count and handle SIGWINCH."""
        self._counted(MasterSignal.WINCH)
