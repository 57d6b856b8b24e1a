"""One test for a whole table: every case is tried, and all that fail are told at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import pytest

Case = TypeVar("Case", bound=Hashable)


def offenders(cases: Iterable[Case], check: Callable[[Case], object]) -> dict[Case, str]:
    """Return the cases for which ``check`` raised, each with what it raised: empty where all is well.

    Raises ``AssertionError`` when there is no case at all: an empty table would hold nothing.
    """
    tried = [*cases]
    assert tried, "there is no case to try"
    return {case: reason for case in tried if (reason := _failure(check, case))}


def _failure(check: Callable[[Case], object], case: Case) -> str:
    try:
        check(case)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it is, it is the case's
        return f"{type(error).__name__}: {error}"
    return ""
