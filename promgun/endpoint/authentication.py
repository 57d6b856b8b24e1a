"""Who may ask: passwords against bcrypt hashes, and bearer tokens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: How many results of password checks are remembered. Right and wrong ones are kept apart, so that guesses push no
#: right one out.
REMEMBERED = 100
#: How many passwords wait to be checked; further ones are refused.
MOST_WAITING = 8
# bcrypt takes 72 bytes (5.0 raises for more, older ones cut them off) and no NUL.
_LONGEST_PASSWORD = 72
# The hash of a random password, with which an unknown user's password is compared. It gets the cost of the others, so
# that the time taken does not tell which users exist.
_NOBODY = b"$2b$%02d$OMmZcPvNij63AbZW4UxZkenH6iDAYrU85GmzdlxexJg2nhaatmuZ2"


class Verdict(Enum):
    """What became of a password."""

    RIGHT = auto()
    WRONG = auto()
    BUSY = auto()  # too many wait already: nobody looked


class _Results:
    """The latest results, by digest."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        if digest in self._kept:
            self._kept.move_to_end(digest)
            return True
        return False

    def add(self, digest: bytes) -> None:
        self._kept[digest] = None
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)


class Passwords:
    """Checks passwords, one at a time on a thread of its own: bcrypt is slow on purpose, and no scrape waits for it.

    Used from one event loop. Results are remembered under a keyed digest of the user, the hash and the password, each
    with its length (CVE-2022-46146 was a digest without), so a changed hash is asked again.
    """

    def __init__(self, check: Callable[[bytes, bytes], bool]) -> None:
        self._check = check
        self._key = os.urandom(32)
        self._right = _Results()
        self._wrong = _Results()
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="promgun-password")

    async def verify(self, users: Mapping[str, bytes], user: str, password: bytes) -> Verdict:
        """Say whether this is the user's password."""
        digest = self._digest(user.encode(), users.get(user, b""), password)
        if digest in self._right:
            return Verdict.RIGHT
        if digest in self._wrong:
            return Verdict.WRONG
        running = self._running.get(digest)
        if running is None:
            if len(self._running) > MOST_WAITING:
                return Verdict.BUSY
            running = self._start(digest, users, user, password)
        return Verdict.RIGHT if await asyncio.shield(running) else Verdict.WRONG

    def close(self) -> None:
        """Check nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start(self, digest: bytes, users: Mapping[str, bytes], user: str, password: bytes) -> asyncio.Future[bool]:
        stored = users.get(user)
        compared = stored or _stand_in(users)

        def compare() -> bool:
            fits = len(password) <= _LONGEST_PASSWORD and b"\0" not in password
            # The time is spent either way.
            matches = self._check(password if fits else b"", compared)
            return matches and fits and stored is not None

        running = asyncio.get_running_loop().run_in_executor(self._thread, compare)
        self._running[digest] = running
        running.add_done_callback(lambda done: self._note(digest, done))
        return running

    def _note(self, digest: bytes, done: asyncio.Future[bool]) -> None:
        del self._running[digest]
        if not done.cancelled() and done.exception() is None:
            (self._right if done.result() else self._wrong).add(digest)

    def _digest(self, *parts: bytes) -> bytes:
        text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._key, text, hashlib.sha256)


def _stand_in(users: Mapping[str, bytes]) -> bytes:
    return _NOBODY % max(int(stored[4:6]) for stored in users.values())


def read_basic(credentials: str) -> tuple[str, bytes] | None:
    """Return user and password of Basic credentials (RFC 7617), ``None`` for what is not that."""
    try:
        user, colon, password = base64.b64decode(credentials, validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except ValueError:
        return None


def is_one_of(token: bytes, tokens: tuple[bytes, ...]) -> bool:
    """Compare a token with every one that is valid; the time does not depend on where they differ."""
    matches = [hmac.compare_digest(_hash(token), _hash(valid)) for valid in tokens]
    return any(matches)


def _hash(token: bytes) -> bytes:
    # Of one length, so that the time does not tell how long a valid token is.
    return hashlib.sha256(token).digest()
