"""An eventlet worker on Gunicorn's ``AsyncWorker``: Gunicorn removed its own in 26.0.

Importing this module loads eventlet and patches nothing: the standard library is patched in the worker, after
the fork and before the application loads, so that the master keeps real sockets and locks.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gunicorn.sock import ssl_context
from gunicorn.workers.base_async import AsyncWorker

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet announces its retirement at import; check_config does it once
    import eventlet
    import eventlet.wsgi
    from eventlet import hubs, patcher
    from eventlet.greenio import GreenSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_installed = eventlet.__version__
if (0, 0, 0) < tuple(map(int, re.findall(r"\d+", _installed)[:3])) < (0, 40, 3):  # 0.0.0: an editable install
    raise ImportError(f"eventlet 0.40.3 or newer is needed, {_installed} is installed", name="eventlet")

RETIREMENT = (
    "eventlet is retired: its authors only fix bugs, and Gunicorn dropped its own eventlet worker in 26.0. "
    "This worker keeps running; plan a move to gthread or gevent "
    "(https://eventlet.readthedocs.io/en/latest/asyncio/migration.html)"
)
HEARTBEAT = 1.0  # seconds between two notify() calls; a signal ends the wait early
DRAIN_POLL = 0.1  # seconds between two looks at the remaining connections while stopping
QUIET_AFTER = 1.0  # seconds a stopping worker leaves a client to send the request it may have under way
ACCEPT_PAUSE = 0.5  # seconds before the next accept() after one failed, e.g. for want of descriptors
SENDFILE_CHUNK = 1 << 20  # bytes between two turns for the other clients
NOBODY_THERE = frozenset({errno.EAGAIN, errno.ECONNABORTED})  # another worker was faster, or the client left

# OpenSSL 3 answers the end of input with an alert; an idle client that is let go should see a plain end.
IGNORE_EOF = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
_shutdown = patcher.original("socket").socket.shutdown


class ClientSocket(GreenSocket):  # type: ignore[misc]  # eventlet has no types
    """A green socket whose ``sendfile`` yields; GreenSocket's would reach the blocking one of the stdlib."""

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send ``count`` bytes (None: all) of ``file`` from ``offset`` and return how many went out."""
        sent = 0
        while count is None or sent < count:
            size = SENDFILE_CHUNK if count is None else min(SENDFILE_CHUNK, count - sent)
            done = self._send_chunk(file, offset + sent, size)
            if not done:
                break
            sent += done
            eventlet.sleep(0)  # a fast reader never makes the socket wait, and so would starve the others
        return sent

    def _send_chunk(self, file: Any, offset: int, size: int) -> int:
        try:
            while True:
                with suppress(BlockingIOError):
                    return os.sendfile(self.fileno(), file.fileno(), offset, size)
                hubs.trampoline(self, write=True)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOSYS}:  # sendfile(2): not with this kind of file
                raise
        file.seek(offset)
        data = file.read(size)
        self.sendall(data)
        return len(data)


@dataclass(slots=True)
class Connection:
    """A client; ``quiet_since`` (monotonic seconds) is None while a request of it is being answered."""

    socket: Any
    quiet_since: float | None

    def end_input(self) -> None:
        """End its input after what has already arrived: a request that came just in time is answered."""
        with suppress(OSError):
            # SSLSocket.shutdown() would drop the TLS session as well, hence the plain socket's method.
            _shutdown(getattr(self.socket, "fd", self.socket), socket.SHUT_RD)


class EventletWorker(AsyncWorker):  # type: ignore[misc]  # Gunicorn has no types
    """Serves each client in a green thread, at most ``worker_connections`` of them over all listeners."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections: dict[Any, Connection] = {}  # by green thread

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:  # noqa: ARG003  # Arbiter.start() gives both
        """Log once, in the master, that eventlet is retired (Gunicorn calls this before the first fork)."""
        # eventlet's fork hook warns at each fork, of which every worker is one.
        warnings.filterwarnings("ignore", r"Using fork\(\) is a bad idea", DeprecationWarning)
        log.warning(RETIREMENT)

    def patch(self) -> None:
        """Make this process cooperative, with its own hub: a hub's descriptors do not survive a fork."""
        hubs.use_hub()
        eventlet.monkey_patch()

    def init_process(self) -> None:
        """Patch, then boot as Gunicorn does: the application is loaded in there."""
        self.patch()
        super().init_process()

    def notify(self) -> None:
        """Send the heartbeat; raises SystemExit when the master is gone."""
        super().notify()
        if self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            sys.exit(0)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Quit at once, in a green thread: Gunicorn's handler sleeps, which the hub must not."""
        eventlet.spawn(super().handle_quit, sig, frame)

    def handle_usr1(self, sig: int, frame: Any) -> None:
        """Reopen the log files, in a green thread: it may have to wait for a handler's lock."""
        eventlet.spawn(super().handle_usr1, sig, frame)

    def timeout_ctx(self) -> Any:
        """Limit the wait for a request to ``keepalive`` seconds, without an exception at the end."""
        return eventlet.Timeout(self.cfg.keepalive or None, False)  # noqa: FBT003  # eventlet's signature

    def is_already_handled(self, respiter: Any) -> bool:
        """Tell whether the application answered on the socket itself, as eventlet's WebSocketWSGI does."""
        if getattr(eventlet.wsgi.WSGI_LOCAL, "already_handled", False):
            raise StopIteration
        return bool(super().is_already_handled(respiter))

    def run(self) -> None:
        """Serve until told to stop, then let the clients finish within ``graceful_timeout`` seconds."""
        slots = eventlet.Semaphore(self.worker_connections)
        listeners = [self._green_listener(wrapper.sock) for wrapper in self.sockets]
        acceptors = [eventlet.spawn(self._accept, listener, slots) for listener in listeners]
        while self.alive:
            self.notify()
            self._wait_for_signal()
        for acceptor in acceptors:
            acceptor.kill()
        for listener in listeners:
            listener.close()  # may be the last copy after a reload: clients are then refused instead of left waiting
        self._drain(time.monotonic() + self.cfg.graceful_timeout)

    @staticmethod
    def _green_listener(sock: Any) -> ClientSocket:
        # A listener made before the patch would return green sockets from accept() to be wrapped again: use its
        # descriptor.
        listener = ClientSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        listener.setblocking(False)  # noqa: FBT003  # the socket API
        return listener

    def _wait_for_signal(self) -> None:
        # Gunicorn makes PIPE the wakeup descriptor, so a stop need not wait for the next heartbeat.
        with suppress(TimeoutError):
            hubs.trampoline(self.PIPE[0], read=True, timeout=HEARTBEAT, timeout_exc=TimeoutError)
            os.read(self.PIPE[0], 4096)

    def _accept(self, listener: ClientSocket, slots: Any) -> None:
        """Accept a client only when it can be served; the rest are left to other workers."""
        while True:
            hubs.trampoline(listener, read=True)
            slots.acquire()
            try:
                client, addr = listener.accept()
            except OSError as error:
                slots.release()
                if error.errno not in NOBODY_THERE:
                    self.log.warning("Cannot accept a client: %s", error)
                    eventlet.sleep(ACCEPT_PAUSE)
                continue
            eventlet.spawn_n(self._serve, listener, ClientSocket(client), addr, slots)

    def _serve(self, listener: ClientSocket, client: ClientSocket, addr: Any, slots: Any) -> None:
        try:
            client.setblocking(True)  # noqa: FBT003  # overrides the application's socket.setdefaulttimeout()
            self.handle(listener, client, addr)
        finally:
            client.close()
            slots.release()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one client to its end, under TLS where configured."""
        current = eventlet.getcurrent()
        connection = self._connections[current] = Connection(client, time.monotonic())
        try:
            if not self.cfg.is_ssl or self._secure(connection, addr):
                super().handle(listener, connection.socket, addr)
        finally:
            del self._connections[current]

    def _secure(self, connection: Connection, addr: Any) -> bool:
        """Make the TLS handshake within ``timeout`` seconds; return whether it succeeded.

        AsyncWorker's own handshake (``do_handshake_on_connect`` off) then finds nothing left to do.
        """
        try:
            context = ssl_context(self.cfg)
            if self.cfg.suppress_ragged_eofs:
                context.options |= IGNORE_EOF
            connection.socket = client = context.wrap_socket(
                connection.socket,
                server_side=True,
                suppress_ragged_eofs=self.cfg.suppress_ragged_eofs,
                do_handshake_on_connect=False,
            )
        except OSError:
            self.log.exception("Cannot set up TLS")
            return False
        try:
            with eventlet.Timeout(self.cfg.timeout or None):
                client.do_handshake()
        except eventlet.Timeout:
            self.log.debug("No TLS handshake from %s", addr)
        except OSError as error:
            if isinstance(error, ssl.SSLError) and error.args[0] != ssl.SSL_ERROR_EOF:
                self.handle_error(None, client, addr, error)
            else:
                self.log.debug("TLS handshake broken off: %s", error)
        else:
            return True
        client.close()
        return False

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Answer one request; see AsyncWorker."""
        return self._answer(super().handle_request, (listener_name, req, sock, addr))

    def handle_http2_request(self, listener_name: Any, req: Any, sock: Any, addr: Any, h2_conn: Any) -> Any:
        """Answer one HTTP/2 request; see AsyncWorker."""
        return self._answer(super().handle_http2_request, (listener_name, req, sock, addr, h2_conn))

    def _answer(self, answer: Callable[..., Any], args: Sequence[Any]) -> Any:
        connection = self._connections[eventlet.getcurrent()]
        connection.quiet_since = None
        try:
            return answer(*args)
        finally:
            connection.quiet_since = time.monotonic()

    def _drain(self, deadline: float) -> None:
        while self._connections and time.monotonic() < deadline:
            self.notify()
            for connection in self._connections.values():
                quiet_since = connection.quiet_since
                if quiet_since is not None and time.monotonic() - quiet_since > QUIET_AFTER:
                    connection.end_input()
            eventlet.sleep(DRAIN_POLL)
        if self._connections:
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
