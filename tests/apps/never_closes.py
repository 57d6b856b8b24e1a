"""A worker class whose server hands out what the application returns and never calls ``close``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class NeverCloses(PyWSGIHandler):  # type: ignore[misc] # gunicorn is untyped
    """Serves as gevent-websocket 0.10 does: it hands out what the application returns, and calls no ``close``."""

    def run_application(self) -> None:
        """Serve a websocket without a status line of the application's; all else as gevent does."""
        if "HTTP_UPGRADE" not in self.environ:
            super().run_application()
            return
        self.socket.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        self.environ["wsgi.websocket"] = self.socket
        self.status = "101 Switching Protocols"
        list(self.application(self.environ, lambda *_: []))
        self.close_connection = True


class NeverClosingWorker(GeventPyWSGIWorker):  # type: ignore[misc] # gunicorn is untyped
    """A worker class as gevent-websocket's."""

    wsgi_handler = NeverCloses


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve a websocket that a server has opened until the client leaves; answer all else."""
    connection: Any = environ.get("wsgi.websocket")
    if connection is None:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    while connection.recv(1024):
        pass
    return []
