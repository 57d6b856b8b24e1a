"""The configuration of a worker that has booted: read once, not two dozen times a request.

``Config.__getattr__`` (gunicorn 25.3 to 27.0) runs, after the ordinary look-up has failed, for every ``cfg.name`` in
Gunicorn's own request path: 22 to 24 times a request, some 13 µs on CPython 3.11, more than all that promgun adds. A
worker's settings are final once it serves, so it keeps their values as attributes, which the ordinary look-up finds.
"""

from __future__ import annotations

from typing import Any


def settle(cfg: Any) -> None:
    """Keep the value of every setting of ``cfg`` as a plain attribute; ``cfg.set`` goes on working.

    What the class computes (``is_ssl``, ``address`` …) stays computed: a property comes before an attribute.
    """
    kind = type(cfg)
    if issubclass(kind, _SettledConfig):
        return
    vars(cfg).update({name: setting.get() for name, setting in cfg.settings.items()})
    cfg.__class__ = type(kind.__name__, (_SettledConfig, kind), {"__module__": kind.__module__})


class _SettledConfig:
    settings: Any

    def set(self, name: str, value: Any) -> None:
        """Set a value, as ``Config.set`` does, also where it is kept."""
        super().set(name, value)  # type: ignore[misc] # the class behind us is Gunicorn's
        vars(self)[name] = self.settings[name].get()
