"""Dataclasses as JSON, and back with every type checked, for data from a process with fewer rights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_MARK = "__dataclass_fields__"


def dumps(value: object) -> bytes:
    """Return dataclasses, tuples, mappings, texts, numbers and ``None`` as JSON."""
    return json.dumps(_plain(value), separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float)) or value is None:
        return value
    if hasattr(value, _MARK):
        return [_plain(getattr(value, name)) for name in _fields(value.__class__)]
    if isinstance(value, Mapping):
        return [[_plain(key), _plain(item)] for key, item in value.items()]
    return [_plain(item) for item in value]


def loads(annotation: Any, data: bytes) -> Any:
    """Return what :func:`dumps` was given, of the type ``annotation``; raises ``ValueError`` for anything else."""
    try:
        return _typed(annotation, json.loads(data))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _typed(annotation: Any, value: Any) -> Any:
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind in {Union, UnionType}:
        typed = None if value is None else _typed(next(one for one in inner if one is not type(None)), value)
    elif kind is tuple:
        items = _of(list, value)
        each = [inner[0]] * len(items) if inner[1:] == (...,) else inner
        typed = tuple([_typed(one, item) for one, item in zip(each, items, strict=True)])
    elif kind is not None:
        typed = {_typed(inner[0], key): _typed(inner[1], item) for key, item in _of(list, value)}
    elif hasattr(annotation, _MARK):
        given = zip(_fields(annotation).items(), _of(list, value), strict=True)
        typed = annotation(**{name: _typed(one, item) for (name, one), item in given})
    elif annotation is float:
        typed = float(_of((int, float), value))
    else:
        typed = _of(annotation, value)
    return typed


def _of(kind: Any, value: Any) -> Any:
    # True is an int to Python
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"not {kind}")
    return value


@lru_cache(maxsize=64)
def _fields(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}
