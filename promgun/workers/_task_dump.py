"""The stacks of asyncio's tasks: of each the chain of what it awaits, from its coroutine to what it waits for."""

from __future__ import annotations

import gc
import linecache
import sys
from collections.abc import Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, GeneratorType
from typing import Any

#: More are counted, but not shown. Tasks of one stack are one.
_MOST_STACKS, _MOST_TASKS, _MOST_FRAMES, _MOST_NAMES = 200, 5_000, 50, 5
_LONGEST = 200
#: The generator that drives a coroutine step by step (``_uvicorn_quick_cycle``), and its variable for that.
_DRIVER, _DRIVEN = "_call_application", "driven"
#: Of each kind of what is awaited, its attributes: the frame, and what it awaits itself.
_KINDS: dict[type, tuple[str, str]] = {
    CoroutineType: ("cr_frame", "cr_await"),
    AsyncGeneratorType: ("ag_frame", "ag_await"),
    GeneratorType: ("gi_frame", "gi_yieldfrom"),
}
_Line = tuple[CodeType, int]
#: The frames of a stack, outermost first, and what the innermost waits for.
_Stack = tuple[tuple[_Line, ...], str]


def task_stacks() -> str:
    """Return the stacks of all tasks of the loop that runs in this thread; empty where none runs.

    Also for a signal handler: nothing is awaited or locked. Of a task that is running only the thread knows the stack.
    """
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None:
        return ""
    try:
        tasks = asyncio.all_tasks()
        running = asyncio.current_task()
    except RuntimeError:
        return ""
    stacks: dict[_Stack, list[str]] = {}
    for task in sorted(tasks, key=_name)[:_MOST_TASKS]:
        if task is not running:
            stacks.setdefault(_stack(task.get_coro(), asyncio.Future), []).append(_name(task))
    shown = [_shown(stack, names) for stack, names in list(stacks.items())[:_MOST_STACKS]]
    if running is not None:
        shown.insert(0, f"Task {_name(running)} is running: see the thread above\n")
    left = sum(len(names) for names in list(stacks.values())[_MOST_STACKS:]) + max(0, len(tasks) - _MOST_TASKS)
    return "".join(shown) + (f"{left} more tasks\n" if left else "")


def _name(task: Any) -> str:
    return str(task.get_name())[:_LONGEST]


def _stack(awaited: Any, future: type) -> _Stack:
    lines: list[_Line] = []
    while awaited is not None and len(lines) < _MOST_FRAMES:
        kind = _KINDS.get(type(awaited))
        if kind is None:
            within = next(_within(awaited, future), None)
            if within is None or isinstance(awaited, future):
                break
            awaited = within
            continue
        frame = getattr(awaited, kind[0])
        if frame is not None:
            lines.append((frame.f_code, frame.f_lineno))
        awaited = getattr(awaited, kind[1])
        if awaited is None and frame is not None and frame.f_code.co_name == _DRIVER:
            awaited = frame.f_locals.get(_DRIVEN)
    waits = "" if awaited is None else _described(awaited)
    return tuple(lines), waits


def _within(awaited: Any, future: type) -> Iterator[Any]:
    """Yield what an iterator of asyncio's own stands for: a future, or a step of a coroutine or generator."""
    for inner in gc.get_referents(awaited):
        if type(inner) in _KINDS or isinstance(inner, future):
            yield inner


def _described(awaited: Any) -> str:
    try:
        name = f" {_name(awaited)}"
    except Exception:  # noqa: BLE001 - only tasks have a name; what an application awaits may raise anything
        name = ""
    return f"{type(awaited).__name__}{name}"


def _shown(stack: _Stack, names: list[str]) -> str:
    lines, waits = stack
    more = f" and {len(names) - _MOST_NAMES} more of the same stack" if len(names) > _MOST_NAMES else ""
    out = [f"Task {', '.join(names[:_MOST_NAMES])}{more}:\n"]
    for code, number in lines:
        out.append(f'  File "{code.co_filename}", line {number}, in {code.co_name}\n')
        text = linecache.getline(code.co_filename, number).strip()
        if text:
            out.append(f"    {text[:_LONGEST]}\n")
    if waits:
        out.append(f"  waits for {waits}\n")
    return "".join(out)
