"""The application's own collectors, as flags and variables name them: ``MODULE:FACTORY``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple


class AppCollectors(NamedTuple):
    """The collectors to run, and the folders in which their modules are looked for."""

    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


def check_collector(name: str) -> str:
    """Return ``name``; raises ``ValueError`` for anything that is not ``MODULE:FACTORY``."""
    module, colon, factory = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *factory.split("."))):
        raise ValueError(f"{name!r} is not MODULE:FACTORY, e.g. shop.metrics:StockCollector")
    return name


def collectors_of(cfg: Any) -> AppCollectors:
    """Return those of a Gunicorn ``Config`` with promgun's settings."""
    return AppCollectors(tuple(cfg.metrics_collector), _paths(cfg))


def collectors_from(environment: Mapping[str, str], cfg: Any) -> AppCollectors:
    """Return those of ``PROMGUN_METRICS_COLLECTOR``, names separated by spaces; raises ``ValueError`` for a bad one."""
    names = tuple(map(check_collector, environment.get("PROMGUN_METRICS_COLLECTOR", "").split()))
    return AppCollectors(names, _paths(cfg))


def _paths(cfg: Any) -> tuple[str, ...]:
    """Return the folders in which Gunicorn looks for the application."""
    added = [os.path.abspath(folder) for folder in (cfg.pythonpath or "").split(",") if folder]
    return (cfg.chdir, *added)
