"""Tells whether a server's function is the one that a shortcut of ours was written for."""

from __future__ import annotations

from collections.abc import Mapping
from types import CodeType
from typing import Any
from zlib import crc32


def checksum(function: Any) -> int:
    """Return a checksum of the names in a function, the same on each version of Python; 0 of what is no function."""
    code = getattr(function, "__code__", None)
    # Only before Python 3.12 the code of a comprehension is one of its own, with an argument of this name.
    return 0 if code is None else crc32(" ".join(sorted(_names_in(code) - {".0"})).encode())


def has_methods(owner: Any, known: Mapping[str, int]) -> bool:
    """Whether the methods of a class have these checksums."""
    return all(checksum(getattr(owner, name, None)) == expected for name, expected in known.items())


def _names_in(code: CodeType) -> set[str]:
    nested = [_names_in(inner) for inner in code.co_consts if isinstance(inner, CodeType)]
    return {*code.co_names, *code.co_varnames, *code.co_cellvars, *code.co_freevars}.union(*nested)
