"""Signals of the master, counted where Gunicorn handles them: in the main loop, by ``handle_<signal>``."""

from __future__ import annotations

from typing import Any


class CountsSignals:
    """Stands in front of the arbiter's handlers; each is found by name (gunicorn 25.3 to 27.0 ``Arbiter.run``)."""

    instruments: Any

    def _counted(self, name: str) -> None:
        self.instruments.counters.inc("gunicorn_master_signals_total", (name,))
        getattr(super(), f"handle_{name}")()

    def handle_hup(self) -> None:
        """Count and handle SIGHUP."""
        self._counted("hup")

    def handle_int(self) -> None:
        """Count and handle SIGINT."""
        self._counted("int")

    def handle_quit(self) -> None:
        """Count and handle SIGQUIT."""
        self._counted("quit")

    def handle_term(self) -> None:
        """Count and handle SIGTERM."""
        self._counted("term")

    def handle_ttin(self) -> None:
        """Count and handle SIGTTIN."""
        self._counted("ttin")

    def handle_ttou(self) -> None:
        """Count and handle SIGTTOU."""
        self._counted("ttou")

    def handle_usr1(self) -> None:
        """Count and handle SIGUSR1."""
        self._counted("usr1")

    def handle_usr2(self) -> None:
        """Count and handle SIGUSR2."""
        self._counted("usr2")

    def handle_winch(self) -> None:
        """Count and handle SIGWINCH."""
        self._counted("winch")
