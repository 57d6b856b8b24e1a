"""Collections of the page, each shared by all requests that wait for it and begun after them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from promgun.endpoint.filter_queue import FilterQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from promgun.endpoint.error_boundary import ErrorBoundary
    from promgun.endpoint.limits import Limits
    from promgun.endpoint.negotiation import Form

Collected = TypeVar("Collected")
Page = TypeVar("Page")
Result = TypeVar("Result")


class SharedCollections(Generic[Collected, Page]):
    """One collection at a time, on one thread; to be used within a running event loop.

    A request that comes before a round begins gets that round's page; one that comes while it runs gets the next
    round's. So whatever happened before a request was sent is on its page, and any number of simultaneous scrapes cost
    one collection. A round that took ``d`` seconds, rendering included, is followed by a pause of ``d``, at most
    ``limits.pause_seconds``: so, except in very long rounds, clients cannot use more than half of one CPU's time. Each
    form of the page is rendered once a round; of the forms that keep only some names, a round takes ``limits.filters``
    different ones besides those that are ``always`` rendered, and the rest waits (:class:`FilterQueue`). ``refused`` is
    called for each that is given up.

    ``failed`` is the page of those whose collection or rendering raised, was refused, or hangs. Those that
    share a ``thread`` never collect at the same time.
    """

    def __init__(
        self,
        collect: Callable[[], Collected],
        render: Callable[[Collected, Form], Page],
        failed: Page,
        faults: ErrorBoundary,
        limits: Limits,
        *,
        thread: ThreadPoolExecutor | None = None,
        always: Callable[[Form], bool] = lambda _: False,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._collect = collect
        self._render = render
        self._failed = failed
        self._faults = faults
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self.thread = thread or ThreadPoolExecutor(1, thread_name_prefix="promgun-collect")
        self._always = always
        self._refused = refused
        self._next: dict[Form, asyncio.Future[Page]] = {}
        self._filtered: FilterQueue[Page] = FilterQueue(limits, self._loop.time, self._refuse)
        self._runner: asyncio.Task[None] | None = None
        self._began: float | None = None
        self._not_before = 0.0

    def page(self, form: Form, address: str = "") -> asyncio.Future[Page]:
        """Return the page of the next round, or of a later one; others may wait for it too, so do not cancel it.

        ``address`` is who asks.
        """
        waits = bool(form.names) and not self._always(form)
        future = self._filtered.get(form) if waits else self._next.get(form)
        if future is None:
            future = self._loop.create_future()
            if self._hangs():
                future.set_result(self._failed)
            elif waits:
                self._filtered.add(form, address, future)
            else:
                self._next[form] = future
        if self._runner is None and (self._next or self._filtered):
            self._runner = self._loop.create_task(self._run())
        return future

    def close(self) -> None:
        """Begin nothing more; a collection that runs is left to end by itself."""
        if self._runner is not None:
            self._runner.cancel()
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _hangs(self) -> bool:
        return self._began is not None and self._loop.time() - self._began > self._limits.collect_seconds

    def _refuse(self, page: asyncio.Future[Page]) -> None:
        page.set_result(self._failed)
        self._refused()

    async def _run(self) -> None:
        while self._next or self._filtered:
            await asyncio.sleep(self._not_before - self._loop.time())
            pages, self._next = {**self._next, **self._filtered.take()}, {}
            began = self._began = self._loop.time()
            await self._round(pages)
            self._began = None
            ended = self._loop.time()
            self._not_before = ended + min(ended - began, self._limits.pause_seconds)
        self._runner = None

    async def _round(self, pages: dict[Form, asyncio.Future[Page]]) -> None:
        families = await self._on_thread(self._collect)
        for form in sorted(pages, key=lambda form: len(form.names)):
            page = None if families is None else await self._on_thread(self._render, families, form)
            pages[form].set_result(self._failed if page is None else page)

    async def _on_thread(self, call: Callable[..., Result], *args: object) -> Result | None:
        return await self._loop.run_in_executor(self.thread, self._faults.guard, call, *args)
