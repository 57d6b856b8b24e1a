"""How prometheus_client comes to use our value class, without being imported for it."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_MODULE = "prometheus_client.values"


def publish(values: type[Any]) -> None:
    """Make prometheus_client use ``values``, now or whenever it is imported."""
    loaded = sys.modules.get(_MODULE)
    if loaded is not None:
        loaded.ValueClass = values  # type: ignore[attr-defined] # the module's own switch
    elif not any(isinstance(finder, _ValuesFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ValuesFinder(values))


class _ValuesFinder(importlib.abc.MetaPathFinder):
    """Puts our value class into ``prometheus_client.values`` the moment that module is first imported.

    The client chooses its class once, at import (prometheus_client 0.26 ``values.py``); importing it for every worker
    that never uses it would cost start-up time and memory.
    """

    def __init__(self, values: type[Any]) -> None:
        self._values = values

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's own spec with a loader that adds one step."""
        if fullname != _MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ValuesLoader(spec.loader, self._values)
        return spec


class _ValuesLoader(importlib.abc.Loader):
    """The module's own loader, then our class in place."""

    def __init__(self, loader: Any, values: type[Any]) -> None:
        self._loader = loader
        self._values = values

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Leave it to the module's own loader."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then set the class that its metrics will be made of."""
        self._loader.exec_module(module)
        module.ValueClass = self._values  # type: ignore[attr-defined] # the module's own switch
