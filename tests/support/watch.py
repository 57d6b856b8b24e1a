"""A scraper that never stops asking: it tells of pages that failed and of counters that went backwards."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from tests.support.http_client import Address, send
from tests.support.page import Page
from tests.support.sandbox import wait_until

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class Watch:
    """Scrapes an address about 20 times a second while its ``with`` block runs.

    ``failures`` says what went wrong with a page, ``decreases`` which counters sank from one page to the next.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.pages = 0
        self.failures: list[str] = []
        self.decreases: list[str] = []
        self.slowest = 0.0
        self._last: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait_for_a_page()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._wait_for_a_page()
        self._stopped.set()
        self._thread.join(30)

    def _wait_for_a_page(self) -> None:
        """Have one page before what the block does, and one after it, however busy the machine is."""
        seen = self.pages
        wait_until(lambda: self.failures or self.pages > seen)

    def assert_flawless(self) -> None:
        """Assert that every page came and no counter sank; call it after the block."""
        assert not self.failures, self.failures[:3]
        assert self.pages > 1
        assert not self.decreases, self.decreases[:3]

    def _run(self) -> None:
        while not self._stopped.wait(0.05):
            start = time.monotonic()
            try:
                response = send(self.address, path="/metrics")
            except OSError as error:
                self.failures.append(repr(error))
            else:
                self._judge(response.status, response.text)
            self.slowest = max(self.slowest, time.monotonic() - start)

    def _judge(self, status: int, text: str) -> None:
        if status != 200:
            self.failures.append(f"{status} {text[:200]}")
            return
        self.pages += 1
        values = counters(Page(text))
        sunk = [name for name, value in self._last.items() if values.get(name, _absent(name, value)) < value]
        self.decreases += [f"{name}: {self._last[name]} then {values.get(name)}" for name in sunk]
        self._last |= values


def _absent(name: str, value: float) -> float:
    """Return what a missing series counts as: the figures of a process leave with it and go on with the next."""
    of_a_process = "'worker_id'" in name and not name.startswith("gunicorn_worker_requests_total")
    return value if of_a_process else -1


def counters(page: Page) -> dict[str, float]:
    """Return every value of the page that may only rise, by its name and labels."""
    rising = [family for family in page.families.values() if family.type in {"counter", "histogram", "summary"}]
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value for family in rising for sample in family.samples
    }
