"""Command-line options declared as the fields of a frozen dataclass: name, default, help and placeholder."""

from __future__ import annotations

from dataclasses import field
from typing import Any

#: Metadata of a field that is itself such a dataclass: its options join those of the outer one.
PART = {"part": True}


def option(default: Any, text: str, metavar: str = "", flag: str = "") -> Any:
    """Declare a field that is an option, with its help; ``flag`` if the flag is not named after the field.

    The option of a tuple may be repeated; that of a bool takes no value.
    """
    return field(default=default, metadata={"help": text, "metavar": metavar or None, "flag": flag})
