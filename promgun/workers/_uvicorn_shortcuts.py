"""Has uvicorn's server do less for each request on httptools; ``--no-server-shortcuts`` turns this off.

The timer of an idle connection is set once, and looks when it goes off: uvicorn sets and cancels one for each request.
A task that has served a request leaves the set of running tasks by itself: uvicorn has it called for in another round
of the event loop, which is a system call.

The server is recognised by the names in its code (uvicorn 0.54); another one, or a class that is derived from it and
has another of these methods, serves in its own way.
"""

from __future__ import annotations

from time import monotonic
from typing import Any
from urllib.parse import unquote

from uvicorn.protocols.http.flow_control import service_unavailable

from promgun.workers._known_code import has_methods
from promgun.workers._uvicorn_heads import AnswerHeads
from promgun.workers._uvicorn_quick_cycle import QuickCycle, QuickEvent

#: The methods that are repeated here, or on which that rests, and the checksums of the names in them.
PROTOCOL = {
    "__init__": 0xB1DD54AD,
    "on_message_begin": 0x5F387793,
    "on_body": 0xA688E0BD,
    "on_message_complete": 0x904D5DC2,
    "shutdown": 0xCA5C471D,
    "connection_lost": 0x7D7409DB,
    "_unset_keepalive_if_required": 0xABC97D0B,
    "data_received": 0x4FB1DA45,
    "on_headers_complete": 0x0F4522E7,
    "_start_asgi_task": 0xDCA5C775,
    "on_response_complete": 0x0DA8E388,
    "timeout_keep_alive_handler": 0x740D521B,
}


#: The same of its ``RequestResponseCycle``.
CYCLE = {
    "__init__": 0x75274642,
    "run_asgi": 0xFF83B66E,
    "send": 0xC518003C,
    "receive": 0x716D0076,
    "send_500_response": 0x62614562,
}
#: What it does not allow in names and values of headers.
PATTERNS = (b'[\x00-\x1f\x7f()<>@,;:\\[\\]={} \t\\\\"]', b"[\x00-\x08\x0a-\x1f\x7f]")

#: Python looks for a number in bytes at once; of bytes it asks first whether they are a number (3.10 to 3.13).
_FRAGMENT = ord("#")


def is_known(protocol: Any, module: Any) -> bool:
    """Whether a class of uvicorn's, with what is in its module, is the one that all this was written for."""
    return (
        has_methods(protocol, PROTOCOL)
        and has_methods(_behind(getattr(module, "RequestResponseCycle", object)), CYCLE)
        and _patterns_in(module) == PATTERNS
    )


def _behind(cycle: type) -> type:
    """Return the class that a class of cycles is derived from, if it is followed already."""
    return ([base for base in cycle.__mro__ if base.__name__ == cycle.__name__] or [cycle])[-1]


def _patterns_in(module: Any) -> tuple[Any, ...]:
    return tuple(getattr(getattr(module, name, None), "pattern", None) for name in ("HEADER_RE", "HEADER_VALUE_RE"))


def quick_protocol(module: Any, worker: Any) -> dict[str, Any]:
    """Return what a class that is derived from ``QuickProtocol`` for a worker has to know; the module of uvicorn's has
    a followed class of cycles.
    """
    cycle = module.RequestResponseCycle
    heads = AnswerHeads(module.STATUS_LINE, module.HEADER_RE, module.HEADER_VALUE_RE)
    return {
        "promgun_worker": worker,
        "promgun_cycle": type(cycle.__name__, (QuickCycle, cycle), {"__module__": cycle.__module__, "__slots__": ()}),
        "promgun_heads": heads,
        "promgun_parse_url": staticmethod(module.httptools.parse_url),
    }


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
    app: Any
    access_log: bool
    access_logger: Any
    _should_upgrade: Any
    connections: Any
    cycle: Any
    expect_100_continue: bool
    limit_concurrency: int | None
    logger: Any
    on_response: Any
    parser: Any
    root_path: str
    scope: Any
    url: bytes
    promgun_running: Any

    #: of the class that is derived for a worker: the worker, its class of cycles, its heads
    promgun_worker: Any
    promgun_cycle: Any
    promgun_heads: Any
    promgun_parse_url: Any

    #: when the connection has been idle for too long, in seconds of the monotonic clock; 0 while it is not idle
    _idle_ends = 0.0

    def on_headers_complete(self) -> None:
        """Begin a request whose head was read, or have it wait for the one before."""
        parser, scope, url, former = self.parser, self.scope, self.url, self.cycle
        http_version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if http_version != "1.1":
            scope["http_version"] = http_version
        if parser.should_upgrade() and self._should_upgrade():
            return
        if url.startswith(b"/") and _FRAGMENT not in url:
            # That is all that its grammar has.
            raw_path, _, query = url.partition(b"?")
        else:
            parsed = self.promgun_parse_url(url)
            raw_path, query = parsed.path, parsed.query or b""
        path = raw_path.decode("ascii")
        if "%" in path:
            path = unquote(path)
        root_path = self.root_path
        scope["path"] = root_path + path
        scope["raw_path"] = root_path.encode("ascii") + raw_path
        scope["query_string"] = query
        app = self.app
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            app = service_unavailable
            self.logger.warning("Exceeded concurrency limit.")
        self.cycle = cycle = object.__new__(self.promgun_cycle)
        cycle.scope = scope
        cycle.transport = self.transport
        cycle.flow = self.flow
        cycle.logger = self.logger
        cycle.access_logger = self.access_logger
        cycle.access_log = self.access_log
        cycle.default_headers = self.server_state.default_headers
        cycle.message_event = QuickEvent()
        cycle.on_response = self.on_response_complete
        cycle.keep_alive = http_version != "1.0" and parser.should_keep_alive()
        cycle.waiting_for_100_continue = self.expect_100_continue
        cycle.body = bytearray()
        cycle.more_body = True
        cycle.disconnected = cycle.response_started = cycle.response_complete = False
        cycle.chunked_encoding = cycle.promgun = cycle.promgun_head = cycle.promgun_task = None
        cycle.promgun_refused = cycle.promgun_steps = False
        cycle.expected_content_length = cycle.received = 0
        cycle.promgun_heads = self.promgun_heads
        if former is None or former.response_complete:
            self._start_asgi_task(cycle, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if self.config.reset_contextvars:
            super()._start_asgi_task(cycle, app)  # type: ignore[misc] # the next class in the MRO
            return
        self.promgun_running = cycle
        cycle.promgun_tasks = tasks = self.tasks
        cycle.promgun_task = task = self.loop.create_task(cycle.running(self.promgun_worker, app))
        if not task.done():
            # An application may have made tasks eager.
            tasks.add(task)

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._idle_ends = 0.0
        flow = self.flow
        if flow.read_paused:
            flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_ends = monotonic() + self.timeout_keep_alive
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._look_if_idle)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_ends = 0.0

    def _look_if_idle(self) -> None:
        self.timeout_keep_alive_task = None
        ends = self._idle_ends
        if not ends:
            return
        left = ends - monotonic()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self._look_if_idle)
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
