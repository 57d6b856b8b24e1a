"""What protects the endpoint, as files say now: opened, and opened again when they change."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from promgun.config.web_config import INSTALL, RateLimit, TlsSettings, read_web_config, watched_files
from promgun.endpoint.tls import Tls, make_tls
from promgun.errors import ConfigurationError, PromgunError
from promgun.metrics.label_values import ReloadResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promgun.config.web_options import WebOptions
    from promgun.endpoint.counts import EndpointCounts

logger = logging.getLogger("promgun.endpoint")

Stamp: TypeAlias = tuple[int, ...]
Stamps: TypeAlias = tuple[Stamp, ...]

_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 5.0
_MOST_TOKEN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """What TCP clients must show. ``is_usable`` is false while there is no good configuration: then nobody may ask."""

    tls: Tls | None = None
    users: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    tokens: tuple[bytes, ...] = field(default=(), repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rate_limit: RateLimit | None = None
    is_usable: bool = True
    files: tuple[str, ...] = ()
    #: Of these files, from before they were opened.
    stamps: Stamps = ()
    asks_for_http2: bool = False

    @property
    def protects(self) -> bool:
        """Whether TLS, passwords or tokens protect the answers, or nobody gets any."""
        return self.tls is not None or bool(self.users or self.tokens) or not self.is_usable


def load_security(options: WebOptions) -> Security:
    """Open the files that ``options`` name; raises :class:`ConfigurationError` when one cannot be used."""
    try:
        return _from_file(Path(options.web_config)) if options.web_config else _from_flags(options)
    except OSError as error:
        path = error.filename
        hint = _mend(str(path)) if isinstance(error, PermissionError) else "Check the path"
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", hint) from error


def _from_file(path: Path) -> Security:
    before = stamp(str(path))
    config = read_web_config(path)
    if config.users:
        check_bcrypt()
    files = tuple(watched_files(path, config))
    stamps = (before, *map(stamp, files[1:]))
    return Security(
        tls=make_tls(config.tls) if config.tls else None,
        users=config.users,
        headers=config.headers,
        rate_limit=config.rate_limit,
        files=files,
        stamps=stamps,
        asks_for_http2=config.asks_for_http2,
    )


def _from_flags(options: WebOptions) -> Security:
    files = tuple(path for path in (options.certfile, options.keyfile, options.bearer_token_file) if path)
    stamps = tuple(map(stamp, files))
    key = options.keyfile or options.certfile
    settings = TlsSettings(cert_file=options.certfile, key_file=key)
    return Security(
        tls=make_tls(settings) if options.certfile else None,
        tokens=_read_tokens(Path(options.bearer_token_file)) if options.bearer_token_file else (),
        files=files,
        stamps=stamps,
    )


def check_bcrypt() -> None:
    """Raise :class:`ConfigurationError` where passwords cannot be checked."""
    try:
        import bcrypt  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError("basic_auth_users needs bcrypt", INSTALL) from error


def _read_tokens(path: Path) -> tuple[bytes, ...]:
    """Read one token a line: during a change of tokens both are valid."""
    with path.open("rb") as file:
        text = file.read(_MOST_TOKEN_BYTES)
    tokens = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not tokens or not all(token.isascii() and token.decode().isprintable() for token in tokens):
        raise ConfigurationError(f"{path} holds no token", "Write one a line, e.g. with: openssl rand -hex 32")
    return tokens


def _mend(path: str) -> str:
    """Return the command that lets this process' group read a file, or enter the folder that it may not."""
    group = os.getegid()
    for folder in reversed(Path(path).parents):
        if folder.exists() and not os.access(folder, os.X_OK):
            return f"Let the workers' user enter the folder: chgrp {group} {folder} && chmod g+x {folder}"
    return f"Let the workers' user read it: chgrp {group} {path} && chmod g+r {path}"


class SecurityWatch:
    """Keeps the last good :class:`Security` of these options; ``changed`` is called after each change of it.

    Files are looked at twice a second, and read when two looks in a row saw the same change, so that a certificate is
    not read without the key that is being written after it.
    """

    def __init__(self, options: WebOptions, counts: EndpointCounts) -> None:
        self._options = options
        self._counts = counts
        self.current = Security()
        self._trouble = ""
        self._files: tuple[str, ...] = ()
        self._seen: Stamps = ()
        self._read: Stamps = ()
        if options.names_files:
            self._begin()

    def _begin(self) -> None:
        options = self._options
        self._files = (options.web_config, options.certfile, options.keyfile, options.bearer_token_file)
        self._seen = self._read = self._stamps()
        try:
            self._take(load_security(options))
        except PromgunError as error:
            # The launcher found the files good. If they are bad when the process is started again, nobody may ask until
            # they are mended.
            self.current = Security(is_usable=False)
            self._fail(error)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        retry_at = loop.time() + _RETRY_SECONDS
        with ThreadPoolExecutor(1, thread_name_prefix="promgun-web-config") as thread:
            while self._options.names_files:
                await asyncio.sleep(_LOOK_SECONDS)
                stamps = self._stamps()
                is_new = stamps == self._seen != self._read
                self._seen = stamps
                # The files that a bad file names are not watched, so it is tried again from time to time.
                if not is_new and (not self._trouble or loop.time() < retry_at):
                    continue
                retry_at = loop.time() + _RETRY_SECONDS
                self._read = stamps
                try:
                    loaded = await loop.run_in_executor(thread, load_security, self._options)
                except PromgunError as error:
                    if is_new or str(error) != self._trouble:
                        self._fail(error)
                else:
                    self._take(loaded)
                    self._counts.reload(ReloadResult.OK)
                    changed()

    def _take(self, loaded: Security) -> None:
        if loaded.asks_for_http2 and not self.current.asks_for_http2:
            logger.warning("http2 in %s is ignored: the metrics endpoint speaks HTTP/1.1", self._options.web_config)
        self.current = loaded
        self._trouble = ""
        self._files = loaded.files
        self._seen = self._read = loaded.stamps

    def _fail(self, error: PromgunError) -> None:
        self._trouble = str(error)
        self._counts.reload(ReloadResult.FAILED)
        what = "the last good one stays in use" if self.current.is_usable else "requests are refused until it can"
        logger.error("The web configuration of the metrics endpoint cannot be used, %s: %s", what, error)

    def _stamps(self) -> Stamps:
        return tuple(map(stamp, self._files))


def stamp(path: str) -> Stamp:
    """Return what changes when a file does; nothing for one that is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid, found.st_gid)
