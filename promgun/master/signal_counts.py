"""Signals of the master, counted where Gunicorn handles them: in the main loop, by ``handle_<signal>``."""

from __future__ import annotations

from typing import Any

from promgun.metrics.families.master import MASTER_SIGNALS
from promgun.metrics.label_values import MasterSignal


class CountsSignals:
    """Overrides the arbiter's handlers, which are found by name (gunicorn 25.3 to 27.0 ``Arbiter.run``)."""

    instruments: Any

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
