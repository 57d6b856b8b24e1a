"""Closed sets: what their members are, and that there are no others."""

from __future__ import annotations

import pytest

from promgun.system.closed_set import ClosedSet, Member


class Colour(str, metaclass=ClosedSet):
    """Three texts."""

    __slots__ = ("name",)
    name: str
    RED = Member("red")
    GREEN = Member("green")
    BLUE = Member("blue")

    @property
    def is_warm(self) -> bool:
        """A property beside the members."""
        return self is Colour.RED


class Size(int, metaclass=ClosedSet):
    """Two numbers."""

    name: str
    SMALL = Member(1)
    LARGE = Member(9)


def test_members_are_instances_with_name_and_value() -> None:
    assert type(Colour.RED) is Colour
    assert (Colour.RED, Colour.RED.name) == ("red", "RED")
    assert (Size.LARGE, Size.LARGE.name, Size.LARGE + 1) == (9, "LARGE", 10)


def test_members_are_the_same_object_each_time() -> None:
    assert Colour.RED is Colour.RED
    assert Colour.RED.is_warm
    assert not Colour.BLUE.is_warm


def test_iteration_has_all_members_in_their_order() -> None:
    assert list(Colour) == ["red", "green", "blue"]
    assert tuple(Size) == (1, 9)
    assert (len(Colour), len(Size)) == (3, 2)
    assert all(isinstance(size, Size) for size in Size)


def test_a_set_without_members_is_empty() -> None:
    class Base(str, metaclass=ClosedSet):
        __slots__ = ()

    assert list(Base) == []


def test_members_have_no_other_names() -> None:
    with pytest.raises(AttributeError):
        _ = Colour.YELLOW  # type: ignore[attr-defined] # that is the point


def test_members_can_be_keys_in_place_of_their_values() -> None:
    assert {"red": 1}[Colour.RED] == 1
    sizes: dict[int, str] = {Size.LARGE: "wide"}
    assert sizes[9] == "wide"
