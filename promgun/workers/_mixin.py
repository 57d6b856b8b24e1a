"""The mixin in front of a Gunicorn worker class that measures its WSGI requests.

A request is followed at three places: around ``handle_request`` (begins, is closed), around the application (is called,
fails), and around the response's ``close`` (the last byte has been handed to the socket, so it is answered). Requests
that Gunicorn refuses or the application fails are answered and counted in ``handle_error``.

``_handle_request_metrics``, ``_handle_request_error_metrics``, ``_generic_handle_request``, ``_generic_handle_error``
and ``update_worker_metrics`` may be overridden: each is called for every event that its name says. If they are not
overridden, the accounting is called directly, which saves a frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic_ns
from typing import Any

from gunicorn.http.wsgi import Response

from promgun.metrics.families.requests import REQUEST_QUEUE_SECONDS
from promgun.metrics.label_values import QueueSource
from promgun.store.process import STORE
from promgun.workers._accounting import RequestAccounting
from promgun.workers._config_cache import cache_settings, wants_shortcuts
from promgun.workers._first_byte import note_writes
from promgun.workers._gunicorn_shortcuts import may_pause, remember_name, take_shortcuts
from promgun.workers._instrumentation import follow_application, follow_requests
from promgun.workers._kind_doubt import KindDoubt
from promgun.workers._lifecycle import WorkerLifecycle
from promgun.workers._queue_time import ArrivalObserver, TrustedPeers
from promgun.workers._request_cpu import CpuAccounting
from promgun.workers._request_state import RequestState
from promgun.workers._response_close import answered_and_closed
from promgun.workers._responses import ResponseObserver
from promgun.workers._server_kinds import is_async, is_threaded
from promgun.workers._tracebacks import hide_own_frames
from promgun.workers._worker_wsgi import WorkerWsgi

#: Through these an exception goes from ``handle_request`` to ``handle_error``, which answers.
_ON_THE_WAY = ("handle", "handle_request", "handle_error", "_generic_handle_request", "_generic_handle_error")


def _no_request(*_: Any) -> None:
    """Replaces ``handle_request`` in a worker class that has none, and so never calls it."""


def _hands_on(worker_class: type) -> bool:
    """Whether what leaves ``handle_request`` is sure to reach ``handle_error`` here: a class from elsewhere that
    replaces one of the methods in between may keep it.
    """
    return not any(
        name in vars(base) and base.__module__.partition(".")[0] not in {"gunicorn", "promgun"}
        for base in worker_class.__mro__
        for name in _ON_THE_WAY
    )


class PrometheusMixin(WorkerLifecycle):
    """Adds metrics to the Gunicorn worker class for WSGI that it stands in front of."""

    __slots__ = ("_follow_request", "_next_handle_request", "_regions", "_worker_wsgi", "accounting", "observe_arrival",
                 "responses")  # fmt: skip

    #: The index of the request among the arguments of the class's ``handle_request``.
    request_at = 1
    #: The region of the only request, in a class that serves one at a time. Other classes take a region for each
    #: request, or have one on the connection, as ``conn.promgun`` (``region_of_connection``).
    only_region: int | None = None
    region_of_connection = False
    #: Whether the class calls ``handle_request`` with a request at all (Gunicorn's on Tornado does not).
    gives_requests = True

    wsgi: Any
    tmp: Any

    @classmethod
    def setup(cls) -> None:
        """Load what is for classes with a hub alone, in the master: its workers have it then."""
        super().setup()
        if is_async(cls):
            from promgun.workers import _gevent_exits, _hub_timers  # noqa: F401, PLC0415 - as is said above

    def prepare(self) -> None:
        """Get ready to follow requests."""
        super().prepare()
        self.accounting = self._new_accounting()
        self.accounting.kind_doubt = KindDoubt(self, calls_asgi=False).look
        self._regions = len(self.accounting.running.free)
        # Bound once: a look-up through super() costs as much as a whole counter.
        self._next_handle_request: Callable[..., Any] = getattr(super(), "handle_request", _no_request)
        answered, own = self.accounting.answered, {}
        if self._overrides("_handle_request_metrics"):
            answered = self._handle_request_metrics
        else:
            own = {"closing": partial(answered_and_closed, self.accounting)}
        self.responses = ResponseObserver(
            self.accounting,
            answered,
            self._handle_request_error_metrics,
            lambda: not self.alive,
            self._log_cut,
            **own,
            unanswered_exits=self._unanswered_exits(),
            hands_on=_hands_on(type(self)),
        )
        os.register_at_fork(after_in_child=self.accounting.forget_parent)
        self._follow_request = self._next_handle_request
        if self.gives_requests:
            self._follow_request = self._followed(self._next_handle_request)
        self.observe_arrival = ArrivalObserver(
            self.instruments.histograms.observer(REQUEST_QUEUE_SECONDS, (QueueSource.KERNEL,))
        )
        if not self._overrides("handle_request") and not self._overrides("_generic_handle_request"):
            self.handle_request = self._follow_request  # type: ignore[method-assign]
        self.responses.measure(Response)
        note_writes(self.accounting, Response)

    def _new_accounting(self) -> RequestAccounting:
        facts = self._board, self.instruments, TrustedPeers(self.cfg), monotonic_ns, self.routes
        if is_async(type(self)):
            from promgun.workers._hub_timers import accounting_on_hub, beating  # noqa: PLC0415 - see setup

            accounting = accounting_on_hub(self, *facts)
            if accounting is not None:
                self._next_notify = beating(self._next_notify, accounting.lag)
                return accounting
        return CpuAccounting(*facts) if self.instruments.recorder.counts_cpu else RequestAccounting(*facts)

    def _unanswered_exits(self) -> tuple[type[BaseException], ...]:
        if is_async(type(self)):
            from promgun.workers._gevent_exits import dropped_by  # noqa: PLC0415 - see setup

            return dropped_by(self._next_handle_request)
        return (BaseException,) if is_threaded(type(self)) else ()

    def _overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(PrometheusMixin, name)

    def _followed(self, handle: Callable[..., Any]) -> Callable[..., Any]:
        def follow(handle: Callable[..., Any]) -> Callable[..., Any]:
            return follow_requests(handle, self, self.accounting, self.responses)

        if not is_async(type(self)):
            return follow(handle)
        from promgun.workers._gevent_exits import follow_inside  # noqa: PLC0415 - see setup

        return follow_inside(handle, follow)

    def _log_cut(self, state: RequestState) -> None:
        """Say which request is cut off, as the master says it of a worker that does not live to see it."""
        request = self.accounting.described(state)
        when = "when it was told to quit" if STORE.worker_quits else "after --graceful-timeout"
        self.log.warning("Worker (pid:%s) was still serving %s: %s", os.getpid(), when, request)

    def work_begun(self) -> int | None:
        """Return how many requests were begun, ``None`` while a thread or greenlet has one."""
        return self.nr if len(self.accounting.running.free) == self._regions else None

    # ---- Gunicorn's methods

    def follow_application(self, application: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``application`` with the accounting in front of it."""
        return follow_application(application, self.accounting)

    def enter_service(self) -> None:
        """Note that the worker serves, put the accounting in front of the application, and save Gunicorn work."""
        super().enter_service()
        self._worker_wsgi = WorkerWsgi(self, self.follow_application)
        cache_settings(self.cfg)
        if wants_shortcuts(self.cfg):
            self.take_shortcuts()

    def take_shortcuts(self) -> None:
        """Save Gunicorn the work that it does anew for each request, from now on."""
        take_shortcuts()
        self._passes_all_on = not may_pause(self._next_notify)
        for listener in self.sockets:
            remember_name(listener)

    def update_worker_metrics(self) -> None:
        """Update the worker's own figures, and how many requests have their CPU time measured."""
        super().update_worker_metrics()
        self.accounting.look_at_rate()

    def note_exit(self) -> None:
        """Write to the board why the worker ends; from now on hooks see the bare application."""
        super().note_exit()
        self._worker_wsgi.restore()

    def handle_request(self, *args: Any) -> Any:
        """Serve a request of HTTP/1."""
        return self._generic_handle_request(self._next_handle_request, *args)

    def handle_http2_request(self, *args: Any) -> Any:
        """Serve a request of HTTP/2; the caller answers a failure with 500 and does not call ``handle_error``.

        An async worker's gets there what is no ``Exception``, without the request (gunicorn 25.3 to 27.0).
        """
        req, following = args[self.request_at], super().handle_http2_request  # type: ignore[misc] # same
        *most, connection = args
        try:
            return self._generic_handle_request(lambda *usual: following(*usual, connection), *most)
        except Exception as error:
            if not req.promgun.recorded:
                self.responses.answered(req, req.promgun, 500, 0)
            hide_own_frames(error)
            raise
        except BaseException as error:
            with suppress(AttributeError):
                error.req = req  # type: ignore[attr-defined] # as Gunicorn's errors have it
            raise

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that Gunicorn refused or the application failed."""
        self._generic_handle_error(super().handle_error, req, client, addr, exc)  # type: ignore[misc] # same

    # ---- the methods to override

    def _generic_handle_request(self, handle: Callable[..., Any], *args: Any) -> Any:
        """Call ``handle``, the worker class's own method, and follow the request among ``args``."""
        follow = self._follow_request if handle is self._next_handle_request else self._followed(handle)
        return follow(*args)

    def _handle_request_metrics(self, req: Any, state: RequestState, status: int, sent: int) -> None:
        """Count an answered request: its status, and the bytes of body sent."""
        self.accounting.answered(req, state, status, sent)

    def _handle_request_error_metrics(self, req: Any, state: RequestState, error_type: str) -> None:
        """Count an exception that left the application."""
        self.accounting.raised(req, state, error_type)

    def _generic_handle_error(
        self, handle: Callable[..., Any], req: Any, client: Any, addr: Any, exc: BaseException
    ) -> None:
        """Have ``handle``, the worker class's own ``handle_error``, answer, and count what it sent."""
        self.responses.error_answered(handle, req, client, addr, exc)


class PrometheusConnectionMixin(PrometheusMixin):
    """For classes that serve a whole connection in ``handle(listener, client, addr)``."""

    __slots__ = ("_next_handle",)

    def prepare(self) -> None:
        """Get ready to follow connections as well."""
        super().prepare()
        self._next_handle: Callable[..., None] = super().handle  # type: ignore[misc] # the next class in the MRO

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection."""
        next_handle = self._next_handle
        if addr.__class__ is tuple:
            arrivals, now = self.observe_arrival, monotonic_ns()
            # ArrivalObserver.__call__
            arrivals.left = left = arrivals.left - 1
            if left <= 0 or now >= arrivals.ask_at:
                arrivals.ask(client, now)
        next_handle(listener, client, addr)
