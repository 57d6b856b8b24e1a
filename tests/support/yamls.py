"""YAML as others read it."""

from __future__ import annotations

from typing import Any

import yaml


def parse(text: str) -> Any:
    """Return the one document in a text."""
    return yaml.safe_load(text)


def parse_all(text: str) -> list[Any]:
    """Return every document in a text."""
    return list(yaml.safe_load_all(text))
