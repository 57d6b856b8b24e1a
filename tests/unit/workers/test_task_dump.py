"""The stacks of tasks: the whole chain of what each awaits, bounded, and alike ones once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator

from promgun.workers import _task_dump
from promgun.workers._task_dump import task_stacks


async def innermost(event: asyncio.Event) -> None:
    await event.wait()


async def pieces(event: asyncio.Event) -> AsyncIterator[int]:
    await innermost(event)
    yield 1


class Custom:
    """What an application may await."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def __await__(self) -> Generator[None, None, None]:
        return innermost(self._event).__await__()


async def by_generator(event: asyncio.Event) -> None:
    async for _ in pieces(event):
        pass


async def by_custom(event: asyncio.Event) -> None:
    await Custom(event)


async def by_task(event: asyncio.Event) -> None:
    await asyncio.create_task(innermost(event), name="inner")


def dumped(*functions: Callable[[asyncio.Event], Awaitable[None]], times: int = 1) -> str:
    """Return what is dumped while tasks of these functions wait."""

    async def run() -> str:
        event = asyncio.Event()
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(function(event), name=f"{function.__name__}-{number}")  # type: ignore[arg-type]
            for function in functions
            for number in range(times)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = task_stacks()
        event.set()
        await asyncio.gather(*tasks)
        return found

    return asyncio.run(run())


def functions_of(dump: str, task: str) -> list[str]:
    """Return the functions on the stack of a task, outermost first."""
    (part,) = [part for part in dump.split("\nTask ") if task in part.partition(":\n")[0].split(", ")]
    return [line.rpartition(", in ")[2] for line in part.splitlines() if line.startswith("  File ")]


def test_each_kind_of_awaiting_shows_its_chain() -> None:
    dump = dumped(innermost, by_generator, by_custom, by_task)
    assert functions_of(dump, "innermost-0") == ["innermost", "wait"]
    assert functions_of(dump, "by_generator-0") == ["by_generator", "pieces", "innermost", "wait"]
    assert functions_of(dump, "by_custom-0") == ["by_custom", "innermost", "wait"]
    assert functions_of(dump, "by_task-0") == ["by_task"]
    assert "  waits for Task inner\n" in dump
    assert "  waits for Future\n" in dump
    assert "    await innermost(event)\n" in dump
    assert "is running: see the thread above" in dump


def test_tasks_of_one_stack_are_shown_once() -> None:
    dump = dumped(innermost, times=1000)
    assert " and 995 more of the same stack:" in dump
    assert dump.count("in innermost") == 1
    assert len(dump) < 2000


def test_a_dump_is_bounded() -> None:
    async def deep(event: asyncio.Event, left: int = 200) -> None:
        await (deep(event, left - 1) if left else innermost(event))

    async def deeply(event: asyncio.Event) -> None:
        await deep(event)

    assert dumped(deeply).count(", in deep\n") == _task_dump._MOST_FRAMES - 1


def test_without_a_loop_there_are_none() -> None:
    assert task_stacks() == ""
