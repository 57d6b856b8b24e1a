"""How our series are shown: routes left out, statuses grouped, constant labels.

The master writes these options into its facts, and whatever reads the store (page, push, status, commands) applies
them. Workers count without them, so a reload changes how everything is shown, what was counted before included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from promgun.store.row_format import checked_text, is_label

#: Characters in all texts of one option together: a master's facts are one small file.
_MOST_CHARACTERS = 10_000
_TRUE, _FALSE = frozenset({"1", "true", "t", "yes", "y", "on"}), frozenset({"0", "false", "f", "no", "n", "off", ""})


class SeriesOptions(TypedDict):
    """The options as the facts of a master have them; ``labels`` are ``NAME=VALUE``."""

    exclude_routes: tuple[str, ...]
    group_status: bool
    labels: tuple[str, ...]


def check_globs(texts: Iterable[str]) -> list[str]:
    """Return globs of routes; raises ``ValueError`` for an empty one, and for far too many."""
    globs = _bounded(texts)
    if not all(globs):
        raise ValueError("a glob of routes cannot be empty; requests without a route have no label to leave out")
    return globs


def check_labels(texts: Iterable[str]) -> list[str]:
    """Return constant labels as ``NAME=VALUE``, of several with one name the last; raises ``ValueError`` for a name
    that no label can have or that our own families use, and for an empty value.
    """
    labels: dict[str, str] = {}
    taken = _taken() if texts else frozenset()
    for text in _bounded(texts):
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise ValueError(f"{text!r} is not NAME=VALUE, e.g. environment=staging")
        if name in taken:
            raise ValueError(f"{name!r} is a label of promgun's own metrics, choose another name")
        if not is_label(name):
            raise ValueError(f"{name!r} is no name of a label: letters, digits and _, with no digit or __ before it")
        if not value:
            raise ValueError(f"the label {name!r} has no value; Prometheus takes an empty label for a missing one")
        labels[name] = value
    return [f"{name}={value}" for name, value in labels.items()]


def _taken() -> frozenset[str]:
    """Return names that a constant label cannot have: the exposition formats', and those of our families."""
    from promgun.metrics.catalog import CATALOG  # noqa: PLC0415 - most servers have no constant label

    return frozenset({"le", "quantile", *(label for spec in CATALOG for label in spec.labels)})


def _bounded(texts: Iterable[str]) -> list[str]:
    checked = list(map(checked_text, texts))
    if sum(map(len, checked)) > _MOST_CHARACTERS:
        raise ValueError(f"more than {_MOST_CHARACTERS:,} characters together")
    return checked


def series_options_of(cfg: Any) -> SeriesOptions:
    """Return those of a Gunicorn ``Config`` with promgun's settings."""
    return SeriesOptions(
        exclude_routes=tuple(cfg.metrics_exclude_route),
        group_status=cfg.metrics_group_status,
        labels=tuple(cfg.metrics_label),
    )


def series_options_from(environment: Mapping[str, str], complain: Callable[[str], None]) -> SeriesOptions:
    """Return those of the ``PROMGUN_`` variables, several texts separated by spaces.

    ``complain`` gets a line for a variable that cannot be used, which counts as not set: plain Gunicorn serves without.
    """

    def read(name: str, parse: Callable[[str], Any], default: Any) -> Any:
        try:
            return parse(environment[name]) if name in environment else default
        except (ValueError, TypeError) as error:
            complain(f"The variable {name} is not used: {error}")
            return default

    return SeriesOptions(
        exclude_routes=read("PROMGUN_METRICS_EXCLUDE_ROUTE", lambda text: tuple(check_globs(text.split())), ()),
        group_status=read("PROMGUN_METRICS_GROUP_STATUS", parse_flag, False),  # noqa: FBT003 - the default
        labels=read("PROMGUN_METRICS_LABEL", lambda text: tuple(check_labels(text.split())), ()),
    )


def wants_request_cpu(environment: Mapping[str, str]) -> bool:
    """Whether the CPU time of requests is counted, by the variable; one that is neither true nor false is not used."""
    try:
        return not parse_flag(environment.get("PROMGUN_NO_METRICS_REQUEST_CPU", ""))
    except ValueError:
        return True


def parse_flag(text: str) -> bool:
    """Return what a variable says for a flag, in the words that Click 8 takes; raises ``ValueError`` for others."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"{text!r} is neither true nor false")
    return word in _TRUE
