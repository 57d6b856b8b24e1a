"""The page for people, and the numbers that it draws: ``/`` and ``/status.json``."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from promgun.endpoint.answers import ALWAYS, Answer
from promgun.status.history import MINUTE, History
from promgun.status.json import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from promgun.status.snapshot import Snapshot

#: Seconds; a snapshot that follows sooner, as happens with several viewers, begins no new interval. The page asks about
#: once a second.
_SHORTEST_INTERVAL = 0.9

# Pages of other origins may not load what is here.
_OWN_ORIGIN = (b"Cross-Origin-Resource-Policy", b"same-origin")
_JSON = ((b"Content-Type", b"application/json"), _OWN_ORIGIN, *ALWAYS)


class StatusFeed:
    """Makes the text of ``/status.json`` each time somebody asks; used from one thread at a time.

    The last minute is built from the snapshots that are taken for these answers: without requests nothing is
    collected. It starts empty after a minute without a request, and when the server was gone. ``paths`` shows the paths
    of running requests.
    """

    def __init__(self, take: Callable[[], Snapshot], *, paths: bool = False) -> None:
        self._take = take
        self._paths = paths
        self._history = History()
        self._was_up = False

    def text(self) -> str:
        """Take a snapshot; give it and the minute before as JSON (``promgun.status.json``)."""
        snapshot = self._take()
        last = self._history.last
        if last is None or not self._was_up or snapshot.taken - last.taken > MINUTE:
            self._history = History()
            self._history.add(snapshot)
        elif snapshot.up and snapshot.taken - last.taken >= _SHORTEST_INTERVAL:
            self._history.add(snapshot)
        self._was_up = snapshot.up
        return to_json(snapshot, self._history, paths=self._paths)


def status(text: str) -> Answer:
    """Return the answer with that JSON; what UTF-8 cannot carry, as of a strange file name, becomes ``?``."""
    return Answer(HTTPStatus.OK, text.encode(errors="replace"), _JSON)


def _policy(style: str, script: str) -> bytes:
    """Allow this style, this script and requests to this server only (CSP 3); no markup from text (Trusted Types)."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_digest(style)}",
            f"script-src {_digest(script)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ).encode()


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _build() -> Answer:
    style, script, page = (
        (Path(__file__).parent / "static" / f"status.{kind}").read_text("utf-8") for kind in ("css", "js", "html")
    )
    return Answer(
        HTTPStatus.OK,
        page.replace("{{style}}", style).replace("{{script}}", script).encode(),
        (
            (b"Content-Type", b"text/html; charset=utf-8"),
            (b"Content-Security-Policy", _policy(style, script)),
            (b"Referrer-Policy", b"no-referrer"),
            _OWN_ORIGIN,
            *ALWAYS,
        ),
    )


# Read at import: the workers' user, to whom the process changes later, may not be able to read the files.
PAGE = _build()
