"""Has uvicorn's server do less for each request on httptools; ``--no-config-cache`` turns this off.

The timer of an idle connection is set once, and looks when it goes off: uvicorn sets and cancels one for each request.
A task that has served a request leaves the set of running tasks by itself: uvicorn has it called for in another round
of the event loop, which is a system call.

The server is recognised by the names in its code (uvicorn 0.54); another one, or a class that is derived from it and
has another of these methods, serves in its own way.
"""

from __future__ import annotations

from typing import Any

from promgun.workers._known_code import has_methods

#: The methods that are repeated here, or on which that rests, and the checksums of the names in them.
PROTOCOL = {
    "connection_lost": 0x7D7409DB,
    "_unset_keepalive_if_required": 0xABC97D0B,
    "data_received": 0x4FB1DA45,
    "on_headers_complete": 0x0F4522E7,
    "_start_asgi_task": 0xDCA5C775,
    "on_response_complete": 0x0DA8E388,
    "timeout_keep_alive_handler": 0x740D521B,
}


def is_known(protocol: Any) -> bool:
    """Whether a class of uvicorn's is the one that all this was written for."""
    return has_methods(protocol, PROTOCOL)


class QuickProtocol:
    """Goes before ``MeasuredProtocol`` and uvicorn's protocol on httptools."""

    config: Any
    loop: Any
    server_state: Any
    tasks: Any
    transport: Any
    flow: Any
    pipeline: Any
    timeout_keep_alive: float
    timeout_keep_alive_task: Any
    timeout_keep_alive_handler: Any

    #: when the connection has been idle for too long, in seconds of the loop's clock; 0 while it is not idle
    _idle_ends = 0.0

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if self.config.reset_contextvars:
            super()._start_asgi_task(cycle, app)  # type: ignore[misc] # the next class in the MRO
            return
        cycle.promgun_tasks = tasks = self.tasks
        cycle.promgun_task = task = self.loop.create_task(cycle.run_asgi(app))
        if not task.done():
            # An application may have made tasks eager.
            tasks.add(task)

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._idle_ends = 0.0
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        loop = self.loop
        self._idle_ends = ends = loop.time() + self.timeout_keep_alive
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = loop.call_at(ends, self._look_if_idle)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_ends = 0.0

    def _look_if_idle(self) -> None:
        self.timeout_keep_alive_task = None
        ends = self._idle_ends
        if not ends:
            return
        if self.loop.time() < ends:
            self.timeout_keep_alive_task = self.loop.call_at(ends, self._look_if_idle)
        else:
            self.timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        super().connection_lost(exc)  # type: ignore[misc] # the next class in the MRO
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None


def forget_ended(tasks: Any) -> None:
    """Remove from the tasks that a server waits for those that were cancelled before they began."""
    tasks.difference_update([task for task in tasks if task.done()])
