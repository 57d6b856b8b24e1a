"""A server that several tests ask in turn, each of which sees only what it has brought about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.harness import PromgunProcess
from tests.support.sandbox import wait_until

if TYPE_CHECKING:
    from tests.support.page import Page


class Counted(PromgunProcess):
    """A view of a running server, whose pages tell what was counted since the first; it is not ended with the view."""

    def __init__(self, server: PromgunProcess) -> None:
        vars(self).update(vars(server))
        wait_until(lambda: server.scrape().sum("gunicorn_worker_requests_in_progress") == 0)
        self._before = server.fresh()

    def scrape(self, query: str = "") -> Page:
        """Return the page of the metrics endpoint, less what was counted in the beginning."""
        return super().scrape(query).since(self._before)
