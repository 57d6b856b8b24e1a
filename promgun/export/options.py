"""Command-line options declared as the fields of a frozen dataclass: name, default, help and placeholder."""

from __future__ import annotations

from dataclasses import field
from typing import Any

#: Metadata of a field that is itself such a dataclass: its options stand beside the others.
PART = {"part": True}


def option(default: Any, text: str, metavar: str = "", flag: str = "") -> Any:
    """Declare a field that is an option: its help, and, where it is not called as the field is, its ``flag``.

    A tuple may be given several times; a truth value is a flag without a value.
    """
    return field(default=default, metadata={"help": text, "metavar": metavar or None, "flag": flag})
