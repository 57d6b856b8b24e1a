"""The applications of the other modules, each imported by the first request for it, and one that waits."""

from __future__ import annotations

import importlib
import os
import time
from typing import Any


def lazy(environ: Any, start_response: Any) -> Any:
    """Pass the request on to the application that the header X-App names."""
    module = importlib.import_module(f"{__package__}.{environ['HTTP_X_APP']}_app")
    return module.app(environ, start_response)


def waiting() -> Any:
    """Return a Flask application with a view that waits for ever, and one that does not."""
    from flask import Flask  # noqa: PLC0415 - the other application here imports it late

    app = Flask(__name__)

    @app.route("/wait/<name>")
    def wait(name: str) -> str:
        with open(name, "w", encoding="utf-8"):
            pass
        while not os.path.exists("go"):
            time.sleep(0.02)
        return name

    return Wrapped(app)


class Wrapped:
    """Hides an application, as WhiteNoise and OpenTelemetry do."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Call it with a copy of environ."""
        return self._application(dict(environ), start_response)
