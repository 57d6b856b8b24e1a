"""Makes prometheus_client use our value class and report metrics without values, without importing it.

prometheus_client chooses its value class once, at import (0.26 ``values.py``). Importing it in every worker that never
uses it would cost start-up time and memory.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

VALUES_MODULE, _METRICS = "prometheus_client.values", "prometheus_client.metrics"
#: Methods of metrics that are wrapped: called when one is made, when its private content is set, or its function.
_CALLED = (
    *((owner, "_metric_init") for owner in ("Counter", "Gauge", "Summary", "Histogram", "Info", "Enum")),
    ("Info", "info"),
    ("Enum", "state"),
    ("Gauge", "set_function"),
)

Action = Callable[[Any], None]


def publish(value_class: Callable[[], type[Any] | None], watch: Callable[[Any], None]) -> None:
    """Make prometheus_client use the class that ``value_class`` returns, if any, and call ``watch``, now or when it is
    imported.

    ``watch`` gets each metric that is made, and each whose info, enum state or gauge function is set.
    """

    def use_values(module: Any) -> None:
        made = value_class()
        if made is not None:
            module.ValueClass = made

    _after_import(VALUES_MODULE, use_values)
    _after_import(_METRICS, lambda module: _watch_calls(module, watch))


def _after_import(name: str, action: Action) -> None:
    loaded = sys.modules.get(name)
    if loaded is not None:
        action(loaded)
    elif not any(isinstance(finder, _Finder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(name, action))


def _watch_calls(module: Any, watch: Callable[[Any], None]) -> None:
    for owner, name in _CALLED:
        kind = getattr(module, owner, None)
        original = getattr(kind, name, None)
        if original is not None and not hasattr(original, "watched"):
            setattr(kind, name, _watched(original, watch))


def _watched(original: Callable[..., Any], watch: Callable[[Any], None]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        watch(self)
        return result

    method.watched = True  # type: ignore[attr-defined] # marks it as wrapped, so that it is not wrapped again
    return method


class _Finder(importlib.abc.MetaPathFinder):
    """Acts on a module the moment it is first imported."""

    def __init__(self, name: str, action: Action) -> None:
        self.name = name
        self._action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's own spec with a loader that adds one step."""
        if fullname != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._action)
        return spec


class _Loader(importlib.abc.Loader):
    """The module's own loader, then the action."""

    def __init__(self, loader: Any, action: Action) -> None:
        self._loader = loader
        self._action = action

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Leave it to the module's own loader."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then act."""
        self._loader.exec_module(module)
        self._action(module)
