"""The cap on label sets: decided by the order of births, never more sets than promised, and nothing shown moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promgun.collect.page_caps import PageCaps
from promgun.metrics.label_sets import (
    METHODS,
    MOST_FOLDED,
    OTHER_METHOD,
    OVERFLOW,
    LabelCap,
    Values,
    fold,
    fold_whole,
    has_free_labels,
)
from promgun.metrics.statuses import KNOWN_STATUSES, OTHER_STATUS, status_class, status_label

NAMES = ("method", "route", "status")
MOST_BEYOND = 96
ALL_METHODS = (*METHODS, OTHER_METHOD)
ALL_STATUSES = (*KNOWN_STATUSES.values(), "1xx", "2xx", "3xx", "4xx", "5xx", OTHER_STATUS)


def sets(*routes: str) -> list[Values]:
    return [("GET", route, "200") for route in routes]


def folded_sets(names: Sequence[str], asked: list[Values], cap: int) -> dict[Values, Values]:
    """Return what a page that sees these sets first shows folded ones as."""
    return {values: folded.values for values, folded in PageCaps().folded(cap, "family", names, asked).items()}


def test_only_free_labels_are_folded() -> None:
    assert has_free_labels(NAMES)
    assert not has_free_labels(("worker_id", "state"))
    assert fold(NAMES, ("GET", "/a", "200")) == ("GET", OVERFLOW, "200")
    assert fold_whole(NAMES, ("GET", "/a", "404")) == (OTHER_METHOD, OVERFLOW, "4xx")
    assert folded_sets(("worker_id",), [(str(n),) for n in range(100)], 2) == {}


def test_a_family_holds_so_many_sets_as_the_cap_says() -> None:
    assert folded_sets(NAMES, sets("/a", "/b"), 2) == {}
    folded = ("GET", OVERFLOW, "200")
    assert folded_sets(NAMES, sets("/c", "/b", "/a"), 2) == {("GET", "/a", "200"): folded}, "the last born"
    assert folded_sets(NAMES, sets(OVERFLOW, "/c", "/b"), 2) == {}, "what is folded takes no place"


def test_beyond_some_folded_sets_method_and_status_are_folded_too() -> None:
    cap = LabelCap(NAMES, 0)
    statuses = list(KNOWN_STATUSES.values())
    shown = [cap.shown_as(("GET", "/a", status)) for status in statuses]
    assert shown[:MOST_FOLDED] == [("GET", OVERFLOW, status) for status in statuses[:MOST_FOLDED]]
    assert shown[MOST_FOLDED:] == [(OTHER_METHOD, OVERFLOW, status_class(status)) for status in statuses[MOST_FOLDED:]]


LABEL_SETS = st.tuples(
    st.sampled_from(ALL_METHODS),
    st.one_of(st.integers(0, 60).map("/{}".format), st.just(OVERFLOW), st.just("")),
    st.sampled_from(ALL_STATUSES),
)


@given(asked=st.lists(LABEL_SETS, max_size=400), cap=st.integers(0, 40))
def test_nothing_that_was_shown_moves(asked: list[Values], cap: int) -> None:
    """Whoever reads later, with more sets, shows each of the earlier ones as they were shown."""
    in_order = list(dict.fromkeys(asked))
    whole = folded_sets(NAMES, in_order, cap)
    for count in range(0, len(in_order), 7):
        part = folded_sets(NAMES, in_order[:count], cap)
        assert part == {values: whole[values] for values in in_order[:count] if values in whole}


def test_a_set_that_was_born_earlier_but_is_seen_later_moves_none_that_was_shown() -> None:
    """A slot was read before the set was born in it, and another slot after a younger one was born there."""
    caps = PageCaps()
    assert caps.folded(2, "f", NAMES, sets("/a", "/c")) == {}
    folded = caps.folded(2, "f", NAMES, sets("/a", "/b", "/c"))
    assert {values[1] for values in folded} == {"/b"}
    assert {values[1] for values in caps.folded(2, "other", NAMES, sets("/a", "/b", "/c"))} == {"/c"}


def test_another_cap_after_a_reload_moves_nothing_that_was_shown() -> None:
    caps = PageCaps()
    assert set(caps.folded(2, "f", NAMES, sets("/a", "/b", "/c"))) == set(sets("/c"))
    assert set(caps.folded(1, "f", NAMES, sets("/a", "/b", "/c", "/d"))) == set(sets("/c", "/d"))
    assert set(caps.folded(9, "f", NAMES, sets("/a", "/b", "/c", "/d", "/e"))) == set(sets("/c", "/d"))


def test_a_page_tells_what_it_folds_from_what_a_worker_has_folded() -> None:
    whole = [("GET", OVERFLOW, status) for status in list(KNOWN_STATUSES.values())[: MOST_FOLDED + 1]]
    folded = PageCaps().folded(0, "f", NAMES, [*sets("/a"), *whole])
    assert folded["GET", "/a", "200"] == (("GET", OVERFLOW, "200"), True)
    assert {at_page for _, at_page in folded.values()} == {True, False}
    assert not any(folded[values].at_page for values in whole if values in folded)


@given(asked=st.lists(LABEL_SETS, max_size=400), cap=st.integers(0, 40))
def test_never_more_sets_than_promised(asked: list[Values], cap: int) -> None:
    decided = LabelCap(NAMES, cap)
    assert len({decided.shown_as(values) for values in asked}) <= cap + MOST_BEYOND


def test_a_client_that_asks_for_everything_gets_no_more_than_promised() -> None:
    cap = LabelCap(NAMES, 10)
    shown: Counter[Values] = Counter()
    for route in range(40):
        for method in ALL_METHODS:
            for status in ALL_STATUSES:
                values = (method, f"/{route}", status)
                shown[cap.folded(values) if cap.is_full_for(values) else cap.shown_as(values)] += 1
    assert len(shown) <= 10 + MOST_BEYOND
    assert sum(shown.values()) == 40 * len(ALL_METHODS) * len(ALL_STATUSES)
    assert len(cap) == 10, "what is folded at a client's wish is not remembered"


def test_what_is_folded_folds_to_itself() -> None:
    """A row that a worker folded is no other set when the page folds all of them."""
    for method in ALL_METHODS:
        for status in ALL_STATUSES:
            folded = fold(NAMES, (method, "/a", status))
            assert fold(NAMES, folded) == folded
            whole = fold_whole(NAMES, folded)
            assert fold_whole(NAMES, whole) == whole


@pytest.mark.parametrize(
    ("code", "label"),
    [
        (200, "200"),
        (418, "418"),
        (425, "425"),
        (511, "511"),
        (299, "2xx"),
        (499, "4xx"),
        (599, "5xx"),
        (199, "1xx"),
        (399, "3xx"),
        (99, OTHER_STATUS),
        (600, OTHER_STATUS),
        (999, OTHER_STATUS),
        (0, OTHER_STATUS),
        (-200, OTHER_STATUS),
        (None, OTHER_STATUS),
        ("200", OTHER_STATUS),
    ],
)
def test_a_status_reads_its_number_its_class_or_other(code: object, label: str) -> None:
    assert status_label(code) == label
    assert status_class(label) in {"1xx", "2xx", "3xx", "4xx", "5xx", OTHER_STATUS}


def test_the_table_of_statuses_is_fixed() -> None:
    """The same labels on each version of Python: HTTPStatus grows and renames."""
    assert len(KNOWN_STATUSES) == 62
    assert KNOWN_STATUSES.keys() <= set(HTTPStatus)
    assert {code for code in KNOWN_STATUSES if code >= 500} == {500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511}
