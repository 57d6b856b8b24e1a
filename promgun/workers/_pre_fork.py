"""The ``pre_fork`` hook, which may fork processes of its own: none of them is the worker that Gunicorn forks next.

Gunicorn makes the worker object, calls the hook and forks (25.3 to 27.0 ``Arbiter.spawn_worker``). A child of the hook
would get the worker's slot and defer its signals; the worker would take another slot, unknown to its master.
"""

from __future__ import annotations

from typing import Any

from promgun.store.process import STORE
from promgun.workers._fork_signals import DEFERRED_SIGNALS


class GuardedHook:
    """Calls a ``pre_fork`` hook and meanwhile gives no child what is for the worker; else it is as the hook itself."""

    def __init__(self, hook: Any) -> None:
        self.__wrapped__ = hook

    def __call__(self, server: Any, worker: Any) -> Any:
        """Call the hook."""
        with STORE.withhold_reservation(), DEFERRED_SIGNALS.withheld():
            return self.__wrapped__(server, worker)

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":
            # not made yet: a copy or a pickle asks
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)


def guard_pre_fork(cfg: Any) -> None:
    """Guard the ``pre_fork`` hook of a Gunicorn ``Config``, once."""
    setting = cfg.settings["pre_fork"]
    # Not by ``set``, which would examine the hook again.
    if not isinstance(setting.value, GuardedHook):
        setting.value = GuardedHook(setting.value)
