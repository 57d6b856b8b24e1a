"""The live view of an instance: takes snapshots, draws frames, reads keys."""

from __future__ import annotations

import io
import os
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from promgun.errors import PromgunError
from promgun.status.history import History
from promgun.status.routes import ORDERS as ROUTE_ORDERS
from promgun.terminal.input import CLOSED, RESIZED
from promgun.terminal.output import Output
from promgun.terminal.top.charts import Glyphs
from promgun.terminal.top.frame import frame, help_frame, page
from promgun.terminal.top.screen import Screen, print_lines
from promgun.terminal.top.view import ORDERS, TABLES, Controls, View

if TYPE_CHECKING:
    from promgun.status.source import SnapshotSource

#: The intervals that + and - choose from, in seconds.
INTERVALS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
#: Seconds of CPU that a frame may take at the chosen interval: 1 % of one CPU at a frame a second.
FRAME_COST = 0.01
_LONGER = frozenset("+=")
_SHORTER = frozenset("-_−")  # noqa: RUF001 - some keyboards have a real minus
#: Seconds between two attempts to find an instance that is gone.
_RETRY = 1.0
_ORDERS = tuple(ORDERS)


def _after(choice: str, choices: tuple[str, ...]) -> str:
    return choices[(choices.index(choice) + 1) % len(choices)]


def can_draw() -> bool:
    """Whether standard output is a screen that can be drawn on again and again."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"", "dumb"}


def _glyphs() -> Glyphs:
    """Return the characters for standard output's encoding; what else it cannot encode is printed as ``?``."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Glyphs.of(sys.stdout.encoding)


def print_frame(source: SnapshotSource, interval: float) -> None:
    """Take two snapshots, ``interval`` seconds apart, and print one frame of them; raises ``PromgunError``."""
    history = History()
    history.add(source.snapshot())
    time.sleep(interval)
    snapshot = source.snapshot()
    history.add(snapshot)
    # Charts of a minute are left out: there is one interval only.
    view = replace(View.of(source.name, snapshot, history), points=())
    output = Output.of()
    width = output.width if output.interactive else None
    print_lines(page(view, Controls(every=interval), width, _glyphs()), width)


class Watch:
    """The live view of one source, until the user leaves it."""

    def __init__(self, source: SnapshotSource, interval: float) -> None:
        self._source = source
        self._controls = Controls(every=interval)
        self._glyphs = _glyphs()
        self._history = History()
        self._costs: deque[float] = deque(maxlen=5)
        self._view = self._sample()
        self._frozen = self._view

    def run(self) -> None:
        """Draw until q, Ctrl-C, or the end of the terminal; raises ``SystemExit`` for SIGTERM and SIGHUP."""
        with suppress(KeyboardInterrupt), Screen() as screen:
            self._draw(screen)
            due = time.monotonic() + self.pause
            while True:
                events = screen.wait(due - time.monotonic())
                if {"q", CLOSED}.intersection(events):
                    return
                for event in events:
                    self._press(event)
                begin = time.process_time()
                due = min(due, time.monotonic() + self.pause)
                sampled = time.monotonic() >= due
                if sampled:
                    due += self.pause
                    self._resample()
                if sampled or events:
                    self._draw(screen)
                if sampled:
                    self._costs.append(time.process_time() - begin)
                    due = max(due, time.monotonic() + self.pause / 2)

    @property
    def pause(self) -> float:
        """Seconds between two snapshots: the interval, or longer where a frame costs more CPU than ``FRAME_COST``."""
        if self._controls.away:
            return max(_RETRY, self._controls.every)
        # the least of the last ones, because on a busy machine single frames take longer
        return self._controls.every * max(1.0, min(self._costs, default=0.0) / FRAME_COST)

    def _sample(self) -> View:
        snapshot = self._source.snapshot()
        self._history.add(snapshot)
        return View.of(self._source.name, snapshot, self._history)

    def _resample(self) -> None:
        """Take a snapshot, or note why there is none; an instance that comes back gets a new history."""
        if self._controls.away:
            self._history = History()
        try:
            self._view = self._sample()
        except PromgunError as error:
            if not self._controls.away:
                at = time.strftime("%H:%M:%S")
                self._controls = replace(self._controls, away=f"gone since {at}, waiting for it: {error.message}")
        else:
            self._controls = replace(self._controls, away="")

    def _press(self, key: str) -> None:
        controls = self._controls
        if controls.help and key != RESIZED:
            self._controls = replace(controls, help=False)
        elif key == "?":
            self._controls = replace(controls, help=True)
        elif key == "p":
            self._frozen = self._view
            self._controls = replace(controls, paused=not controls.paused)
        elif key == "s":
            self._controls = replace(controls, order=_after(controls.order, _ORDERS))
        elif key == "r":
            self._controls = replace(controls, route_order=_after(controls.route_order, tuple(ROUTE_ORDERS)))
        elif key == "t":
            self._controls = replace(controls, tables=_after(controls.tables, TABLES))
        elif key in _LONGER:
            longer = (step for step in INTERVALS if step > controls.every)
            self._controls = replace(controls, every=next(longer, controls.every))
        elif key in _SHORTER:
            shorter = (step for step in reversed(INTERVALS) if step < controls.every)
            self._controls = replace(controls, every=next(shorter, controls.every))

    def _draw(self, screen: Screen) -> None:
        width, height = screen.size
        if self._controls.help:
            screen.show(help_frame(width, height, self._glyphs))
            return
        view = self._frozen if self._controls.paused else self._view
        screen.show(frame(view, replace(self._controls, every=self.pause), width, height, self._glyphs))
