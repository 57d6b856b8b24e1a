"""The loop over a table misses no case and hides no failure."""

from __future__ import annotations

import pytest

from tests.support.offenders import offenders


def test_all_that_fail_are_told_with_their_reasons() -> None:
    tried = []

    def check(case: int) -> None:
        tried.append(case)
        assert case != 1, "one"
        if case == 2:
            pytest.fail("two")
        _ = 6 / (case - 3)

    found = offenders(range(5), check)
    assert tried == [0, 1, 2, 3, 4]
    assert found.keys() == {1, 2, 3}
    assert "one" in found[1]
    assert found[2] == "Failed: two"
    assert found[3] == "ZeroDivisionError: division by zero"


def test_no_case_at_all_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="no case"):
        offenders([], str)
