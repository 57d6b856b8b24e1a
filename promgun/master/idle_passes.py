"""Spares an idle master: while nothing happens, its main loop does Gunicorn's part alone in most of its passes.

Whatever needs the master at once comes as a signal, also the end of a worker or of the metrics process. The rest can
wait for a few seconds: values that the master counts without a signal (lines of its log), its CPU time, OOM kills that
hit another process, and workers that another part of the program has reaped.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from promgun.store.board import Cell

if TYPE_CHECKING:
    from promgun.master.first_start import FirstStart

#: Of the passes without a signal, about a second each, one in so many does everything.
_FULL_PASS_EVERY = 5


class IdlePasses:
    """Overrides the arbiter's ``wait_for_signals`` and ``manage_workers`` (gunicorn 25.3 to 27.0)."""

    context: Any
    metrics_process: Any
    num_workers: int
    reexec_pid: int
    store: Any
    _idle_passes = 0

    @cached_property
    def first_start(self) -> FirstStart:
        """What decides when the first metrics process starts."""
        from promgun.master.first_start import FirstStart  # noqa: PLC0415 - not before the first fork: see ``Arbiter``

        return FirstStart()

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Wait as Gunicorn does, but not for long while the first metrics process waits for a worker."""
        received: list[int] = super().wait_for_signals(self.first_start.pause(timeout))  # type: ignore[misc] # Arbiter's
        self._idle_passes = 0 if received else self._idle_passes + 1
        return received

    def manage_workers(self) -> None:
        """Keep the number of workers; then do what this server needs besides, unless nothing has happened."""
        cells = self.store.board.cells
        is_short = self._idle_passes % _FULL_PASS_EVERY > 0 and cells[Cell.TARGET] == self.num_workers
        cells[Cell.TARGET] = self.num_workers
        super().manage_workers()  # type: ignore[misc] # the next class in the MRO, the Arbiter
        if not is_short or self._is_awaiting():
            self.tend()

    def _is_awaiting(self) -> bool:
        """Whether something is under way of which no signal tells."""
        return (
            not self.first_start.is_over
            or self.store.waits
            or not self.context.succession.is_settled(self.metrics_process, self.reexec_pid)
        )

    def tend(self) -> None:
        """Do what a pass of the main loop does for this server besides Gunicorn's part."""
        raise NotImplementedError
