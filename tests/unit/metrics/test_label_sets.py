"""The cap on label sets: decided by one order, and folded sets never come back."""

from __future__ import annotations

import random

from promgun.metrics.catalog import OVERFLOW
from promgun.metrics.label_sets import Values, fold, has_free_labels, has_room, is_folded, sets_to_fold

NAMES = ("method", "route", "status")


def sets(*routes: str) -> set[Values]:
    return {("GET", route, "200") for route in routes}


def test_only_free_labels_are_folded() -> None:
    assert has_free_labels(NAMES)
    assert not has_free_labels(("worker_id", "state"))
    folded = fold(NAMES, ("GET", "/a", "200"))
    assert folded == ("GET", OVERFLOW, "200")
    assert is_folded(NAMES, folded)
    assert not is_folded(NAMES, (OVERFLOW, "/a", "200")), "a method is no free label"


def test_a_family_holds_so_many_sets_as_the_cap_says() -> None:
    assert [has_room(held, 2) for held in range(4)] == [True, True, False, False]
    assert sets_to_fold(NAMES, sets("/a", "/b"), 2) == frozenset()
    assert sets_to_fold(NAMES, sets("/c", "/b", "/a"), 2) == sets("/c")
    assert sets_to_fold(NAMES, sets("/c", "/b", "/a", OVERFLOW), 2) == sets("/c"), "what is folded takes no place"


def test_a_set_that_was_folded_stays_folded() -> None:
    dice = random.Random(7)
    routes = [f"/{dice.randrange(10_000)}" for _ in range(200)]
    before: frozenset[Values] = frozenset()
    for count in range(len(routes)):
        now = sets_to_fold(NAMES, sets(*routes[:count]), 20)
        assert before <= now
        before = now
    assert len(before) == len(set(routes[:199])) - 20
