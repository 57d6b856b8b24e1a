"""Gunicorn's configuration with the instrumented worker class, and with less of promgun in the log."""

from __future__ import annotations

from collections.abc import ItemsView
from typing import Any

from gunicorn import util
from gunicorn.config import Config, Setting

from promgun.store.run_directory import MULTIPROC_VARIABLE


class InstrumentedConfig(Config):  # type: ignore[misc] # gunicorn is untyped
    """A configuration whose setting ``worker_class`` stays as it was asked for, so that logs and ``--print-config``
    show that, while ``cfg.worker_class`` is the instrumented class.
    """

    #: The instrumented class or its dotted path, once it has been chosen.
    instrumented: str | type | None = None
    settings: dict[str, Setting]

    def __init__(self, usage: str | None = None, prog: str | None = None) -> None:
        super().__init__(usage, prog)
        self.settings = ListedSettings(self.settings)

    @property
    def env(self) -> dict[str, str]:
        """Return the variables of ``raw_env``, with ``--metrics-dir`` without prometheus_client's: code in the workers
        finds the metrics in promgun's directory.
        """
        variables: dict[str, str] = super().env
        if self.metrics_dir:
            variables.pop(MULTIPROC_VARIABLE, None)
        return variables

    @property
    def worker_class(self) -> Any:
        """Return the class that the master instantiates, set up as ``Config.worker_class`` does it."""
        if self.instrumented is None:
            return super().worker_class
        loaded = util.load_class(self.instrumented)
        if hasattr(loaded, "setup"):
            loaded.setup()
        return loaded


class ListedSettings(dict[str, Setting]):
    """The settings by name; those of promgun's own that were not changed are left out of :meth:`items`.

    Gunicorn's debug log lists the items at the start and at every reload (25.3 to 27.0 ``Arbiter.setup``): promgun's
    made it longer by a seventh. ``--print-config`` goes by names and shows all.
    """

    def __init__(self, settings: dict[str, Setting]) -> None:
        super().__init__(settings)
        self._defaults = {
            name: setting.value for name, setting in settings.items() if type(setting).__module__.startswith("promgun.")
        }

    def items(self) -> ItemsView[str, Setting]:  # type: ignore[override] # a view of a copy
        """Return names and settings, without promgun's own that have their default."""
        hidden = {name for name, default in self._defaults.items() if self[name].value == default}
        return {name: self[name] for name in self if name not in hidden}.items()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy as an ordinary dictionary of all settings."""
        return dict, (dict(self),)
