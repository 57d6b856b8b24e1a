"""The process that runs only the application's own collectors, because they may hang, be killed, or fail to load.

It answers each line on standard input with one line of JSON, ``{"families": […], "errors": […]}``; the first answer
comes by itself, once the collectors are made. A family is ``[name, type, help, unit, [[sample, labels, value], …]]``.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from promgun.endpoint.parent_death import dies_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterable


def run(names: Iterable[str], parent: int) -> None:
    """Make the collectors that ``MODULE:FACTORY`` names, and answer until standard input ends."""
    dies_with_parent()
    if os.getppid() != parent:
        return
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        # What the application prints is not an answer.
        os.dup2(2, 1)
        collectors, errors = _make(names)
        _answer(answers, [], errors)
        for _ in sys.stdin:
            families, errors = _collect(collectors)
            _answer(answers, families, errors)


def _make(names: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    collectors: dict[str, Any] = {}
    errors: list[str] = []
    for name in names:
        try:
            module, _, factory = name.partition(":")
            made: Any = import_module(module)
            for part in factory.split("."):
                made = getattr(made, part)
            collectors[name] = made()
        except Exception as error:  # noqa: BLE001, PERF203 - the application's own code; the others are still made
            errors.append(f"{name} cannot be made: {type(error).__name__}: {error}")
    return collectors, errors


def _collect(collectors: dict[str, Any]) -> tuple[list[Any], list[str]]:
    families: list[Any] = []
    errors: list[str] = []
    for name, collector in collectors.items():
        try:
            families += [_plain(family) for family in collector.collect()]
        except Exception as error:  # noqa: BLE001, PERF203 - same
            errors.append(f"{name} raised {type(error).__name__}: {error}")
    return families, errors


def _plain(family: Any) -> list[Any]:
    samples = [
        [_text(sample.name), {_text(label): _text(text) for label, text in sample.labels.items()}, float(sample.value)]
        for sample in family.samples
    ]
    return [_text(family.name), str(family.type), _text(family.documentation), _text(family.unit), samples]


def _text(value: Any) -> str:
    """Return a text that UTF-8 can write: file names may hold surrogates, for which the whole page would fail."""
    return str(value).encode("utf-8", "replace").decode()


def _answer(answers: Any, families: list[Any], errors: list[str]) -> None:
    answers.write(json.dumps({"families": families, "errors": errors}) + "\n")
    answers.flush()
