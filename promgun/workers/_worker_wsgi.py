"""``worker.wsgi``: the measured application while the worker serves, the bare one for hooks outside of requests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

#: Gunicorn's hooks that may run while the worker serves and belong to no request.
_OUTSIDE = ("worker_int", "worker_abort")
_INSIDE = ("pre_request", "post_request")


class WorkerWsgi:
    """Puts the measured application into ``worker.wsgi``, and restores the bare one."""

    def __init__(self, worker: Any, follow: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Measure what ``worker.wsgi`` is now, including wrappers that hooks have put around it."""
        self._worker = worker
        self._application = application = worker.wsgi
        followed = follow(application)
        if followed is not application:
            if any(_is_set(worker.cfg, name) for name in _INSIDE):
                followed = _Transparent(followed, application)
            else:
                # No wrapper written in C around the call: every request would pay for it.
                with suppress(Exception):
                    functools.update_wrapper(followed, application)
        self._followed = worker.wsgi = followed
        for name in _OUTSIDE:
            if _is_set(worker.cfg, name):
                worker.cfg.set(name, self._shown_to(worker.cfg.settings[name].get()))

    def restore(self) -> None:
        """Put the bare application back, unless ``worker.wsgi`` was replaced meanwhile."""
        if self._worker.wsgi is self._followed:
            self._worker.wsgi = self._application

    def _shown_to(self, hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def called(worker: Any) -> Any:
            self.restore()
            try:
                return hook(worker)
            finally:
                if worker.wsgi is self._application:
                    worker.wsgi = self._followed

        with suppress(Exception):
            functools.update_wrapper(called, hook)
        return called


def _is_set(cfg: Any, name: str) -> bool:
    setting = cfg.settings[name]
    return setting.get() is not type(setting).default


class _Transparent:
    """The measured application, with the attributes and the class of the bare one."""

    __slots__ = ("_promgun_application", "_promgun_call")

    def __init__(self, call: Callable[..., Any], application: Callable[..., Any]) -> None:
        object.__setattr__(self, "_promgun_call", call)
        object.__setattr__(self, "_promgun_application", application)

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self._promgun_call(environ, start_response)

    @property  # type: ignore[misc] # object's may be set, this one not
    def __class__(self) -> Any:
        return type(self._promgun_application)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._promgun_application, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._promgun_application, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._promgun_application, name)
