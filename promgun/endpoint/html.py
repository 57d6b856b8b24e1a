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

#: Snapshots that follow one closer, as those of several viewers do, make no interval of their own. The page asks once
#: a second, give or take.
_SHORTEST_INTERVAL = 0.9

# Only sites of this origin may use what is here, however it is loaded.
_OWN_ORIGIN = (b"Cross-Origin-Resource-Policy", b"same-origin")
_JSON = ((b"Content-Type", b"application/json"), _OWN_ORIGIN, *ALWAYS)


class StatusFeed:
    """Makes the text of ``/status.json`` each time somebody asks; used from one thread at a time.

    The last minute is built from these very questions: where nobody asks, nothing is collected. Whoever comes back
    after more than a minute, or when the server does, begins anew. ``paths`` shows those of running requests.
    """

    def __init__(self, take: Callable[[], Snapshot], *, paths: bool = False) -> None:
        self._take = take
        self._paths = paths
        self._history = History()
        self._was_up = False

    def text(self) -> str:
        """Take a snapshot and tell it, with what is known of the minute before, as ``promgun.status.json`` says."""
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
    """Allow a browser these two and questions to this server (CSP 3); text is never made markup (Trusted Types)."""
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


# Read when the module is: the workers' user, whom the process becomes, may not be allowed to.
PAGE = _build()
