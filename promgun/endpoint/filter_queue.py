"""The queue of requests for some families only (``name[]``) that wait for a collection; addresses take turns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from promgun.endpoint.limits import Limits
    from promgun.endpoint.negotiation import Form

Page = TypeVar("Page")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Page]):
    """Who asked first for a form of the page, when, and what they wait for."""

    address: str
    since: float
    page: asyncio.Future[Page]


class FilterQueue(Generic[Page]):
    """The forms of the page that wait; ``refuse`` is called for each that is given up.

    A collection serves at most ``limits.filters`` of them: first the oldest of each address, then the second of each,
    and so on. When ``limits.waiting_filters`` wait already, a new one replaces the newest of the address that has most
    of them; if that address is its own, the new one is refused. One that has waited for longer than
    ``limits.collect_seconds`` is refused as well: its client has had another answer by then.
    """

    def __init__(
        self, limits: Limits, now: Callable[[], float], refuse: Callable[[asyncio.Future[Page]], None]
    ) -> None:
        self._limits = limits
        self._now = now
        self._refuse = refuse
        self._waiting: dict[Form, _Waiting[Page]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def get(self, form: Form) -> asyncio.Future[Page] | None:
        """Return what earlier requests for the same form wait for, if there are any."""
        waiting = self._waiting.get(form)
        return None if waiting is None else waiting.page

    def add(self, form: Form, address: str, page: asyncio.Future[Page]) -> None:
        """Have a form wait, or refuse one where there is no room."""
        if len(self._waiting) >= self._limits.waiting_filters:
            taken = Counter(waiting.address for waiting in self._waiting.values())
            greediest, most = taken.most_common(1)[0]
            if taken[address] + 1 >= most:
                self._refuse(page)
                return
            last = next(each for each in reversed(self._waiting) if self._waiting[each].address == greediest)
            self._refuse(self._waiting.pop(last).page)
        self._waiting[form] = _Waiting(address, self._now(), page)

    def take(self) -> dict[Form, asyncio.Future[Page]]:
        """Remove and return those that the collection which begins now serves."""
        too_old = self._now() - self._limits.collect_seconds
        turns: Counter[str] = Counter()
        ranked: list[tuple[int, int, Form]] = []
        for form, waiting in tuple(self._waiting.items()):
            if waiting.since < too_old:
                self._refuse(self._waiting.pop(form).page)
                continue
            ranked.append((turns[waiting.address], len(ranked), form))
            turns[waiting.address] += 1
        chosen = sorted(ranked, key=lambda each: each[:2])[: self._limits.filters]
        return {form: self._waiting.pop(form).page for _, _, form in chosen}
