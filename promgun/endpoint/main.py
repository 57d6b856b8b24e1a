"""The metrics process itself, and the same endpoint in the foreground."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import pwd
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from promgun.collect.page_names import count_refused
from promgun.config.gateway import Gateway
from promgun.config.web_options import WebOptions
from promgun.endpoint.collected_families import without_shown
from promgun.endpoint.collectors import CollectorProcess
from promgun.endpoint.counts import EndpointCounts
from promgun.endpoint.html import StatusFeed
from promgun.endpoint.limits import Limits, raise_open_files
from promgun.endpoint.parent_death import dies_with_parent
from promgun.endpoint.process import (
    COLLECTOR,
    EXIT_FAILED,
    IGNORED_SIGNALS,
    PACKAGE_FOLDER,
    STOP_SIGNAL,
    EndpointConfig,
)
from promgun.endpoint.push import Lines, load_ahead, push
from promgun.endpoint.security import load_security
from promgun.endpoint.server import MetricsEndpoint
from promgun.errors import PromgunError
from promgun.metrics.defaults import UNIQUE_MEMORY_SECONDS
from promgun.status.from_store import snapshot_of
from promgun.store.readers_rights import rights_to_read
from promgun.system.fewer_rights import become

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn

    from prometheus_client.core import Metric

    from promgun.collect.reading import Reading

logger = logging.getLogger("promgun.endpoint")

_PARENT_CHECK_SECONDS = 1.0
# A collection holds the GIL for 5 ms at a time by default, and the event loop needs it back after every
# system call.
_SWITCH_SECONDS = 0.0005


class Source(Protocol):
    """What the endpoint shows; ``promgun.collect.page.Collector``."""

    def collect(self) -> Sequence[Metric]:
        """Return the whole page."""

    def read(self) -> Reading:
        """Return a reading for the status."""

    def master_alive(self) -> bool:
        """Whether a master holds the store."""

    def worker_booted(self) -> bool:
        """Whether any worker is ready."""


#: Makes a source of a store, what takes lines for the log, and the seconds between two readings of unique memory.
MakeSource: TypeAlias = "Callable[[Path, Callable[[str], None] | None, int], Source]"


class ReadAsOwner:
    """A store served by a process of root's: root's rights are given up for good once it is known which user writes
    there.
    """

    def __init__(self, source: Source, store: Path) -> None:
        self._source = source
        self._store = store

    def _give_up_rights(self) -> Source:
        rights = rights_to_read(self._store)
        if rights is not None:
            become(rights.uid, rights.gid)
        return self._source

    def collect(self) -> Sequence[Metric]:
        """Return the whole page."""
        return self._give_up_rights().collect()

    def read(self) -> Reading:
        """Return a reading for the status."""
        return self._give_up_rights().read()

    def master_alive(self) -> bool:
        """Whether a master holds the store."""
        return self._give_up_rights().master_alive()

    def worker_booted(self) -> bool:
        """Whether any worker is ready."""
        return self._give_up_rights().worker_booted()


def run(argument: str) -> NoReturn:
    """Be the metrics process of the master that passed ``argument``; ends with 0 or 70, whatever happens."""
    code = EXIT_FAILED
    try:
        _log_to_stderr()
        code = main(EndpointConfig.from_json(argument))
    except BaseException:
        logger.exception("The metrics process failed")
    finally:
        os._exit(code)


def main(config: EndpointConfig) -> int:
    """Serve until ``STOP_SIGNAL`` comes or the master is gone; returns the exit code."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
    sys.setswitchinterval(_SWITCH_SECONDS)
    raise_open_files(Limits())
    # Before the change of user: the new one may not be allowed to read the code's folder.
    make_source = _load(config.collector)
    _become(config)
    # After it, because the kernel clears this setting when the user changes.
    watched = None if dies_with_parent() else config.master_pid
    if os.getppid() != config.master_pid:
        return 0
    sockets = [socket.socket(fileno=fd) for fd in config.fds]
    for sock in sockets:
        sock.settimeout(0)
    store = Path(config.store)
    source = make_source(store, logger.warning, config.unique_memory)
    status = StatusFeed(lambda: snapshot_of(source.read()), paths=config.show_paths)
    own = CollectorProcess(config.app_collectors, PACKAGE_FOLDER)
    try:
        asyncio.run(_serve(source, status, sockets, (STOP_SIGNAL,), watched, config.web, own))
    finally:
        own.close()
    return 0


def check(argument: str) -> NoReturn:
    """Write to standard output, as one JSON object, whether the web configuration can be used; see ``check_web``."""
    config = EndpointConfig.from_json(argument)
    _become(config)
    try:
        answer: dict[str, object] = {"tls": load_security(config.web).tls is not None}
    except PromgunError as error:
        answer = {"error": error.message, "hint": error.hint}
    os.write(1, json.dumps(answer).encode())
    os._exit(0)


def push_page(argument: str) -> NoReturn:
    """Push the final page to the gateway that standard input names; write what to log as one JSON list."""
    config = EndpointConfig.from_json(argument)
    asked = json.loads(sys.stdin.buffer.read())
    # Before the change of user: the new one may not be allowed to read the interpreter's files.
    make_source = _load(config.collector)
    load_ahead()
    _become(config)
    lines = Lines()
    families = [*make_source(Path(config.store), None, 0).collect()]
    own = CollectorProcess(config.app_collectors, PACKAGE_FOLDER)
    families += without_shown(families, own.families(), own.refuse)
    count_refused(families, own.refused)
    own.close()
    push(Gateway(asked["url"], asked["username"], asked["password"]), asked["job"], families, lines)
    os.write(1, json.dumps(lines.written).encode())
    os._exit(0)


def serve_store(
    store: Path,
    sockets: Sequence[socket.socket],
    collector: str = COLLECTOR,
    web: WebOptions = WebOptions(),  # noqa: B008 - frozen
    unique_memory: int = UNIQUE_MEMORY_SECONDS,
) -> None:
    """Serve a store on listening, non-blocking sockets, in the foreground, until SIGINT or SIGTERM comes.

    ``web`` must have been found good by ``load_security``; ``unique_memory`` is as in :class:`EndpointConfig`.
    """
    raise_open_files(Limits())
    source = ReadAsOwner(_load(collector)(store, logger.warning, unique_memory), store)
    status = StatusFeed(lambda: snapshot_of(source.read()))
    asyncio.run(_serve(source, status, sockets, (signal.SIGINT, signal.SIGTERM), None, web))


async def _serve(
    source: Source,
    status: StatusFeed,
    sockets: Sequence[socket.socket],
    signals: Iterable[int],
    watched: int | None,
    web: WebOptions,
    own: CollectorProcess | None = None,
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    if watched is not None:
        _end_without(loop, watched)
    counts = EndpointCounts()

    def collect() -> Sequence[Metric]:
        families = source.collect()
        if own is not None:
            families = [*families, *without_shown(families, own.families(), own.refuse)]
            count_refused(families, own.refused)
        return counts.join(families)

    endpoint = MetricsEndpoint(collect, source.master_alive, source.worker_booted, status.text, web=web, counts=counts)
    await endpoint.serve(sockets, stop)


def _load(path: str) -> MakeSource:
    module, _, name = path.partition(":")
    source: MakeSource = getattr(import_module(module), name)
    # All is imported. A full collection would visit these objects with each large page: they live as long as we do.
    gc.freeze()
    gc.enable()
    return source


def _become(config: EndpointConfig) -> None:
    """Change to the workers' user and group, drop all others; raises ``OSError`` if that is not allowed."""
    uid = os.geteuid() if config.uid is None else config.uid
    gid = os.getegid() if config.gid is None else config.gid
    if (uid, gid) == (os.geteuid(), os.getegid()):
        return
    name = _user_name(uid) if config.initgroups else ""
    if name:
        os.initgroups(name, gid)
    elif os.geteuid() == 0:
        os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _end_without(loop: asyncio.AbstractEventLoop, parent: int) -> None:
    if os.getppid() != parent:
        os._exit(0)
    loop.call_later(_PARENT_CHECK_SECONDS, _end_without, loop, parent)


def _log_to_stderr() -> None:
    """Log as Gunicorn does by default (``gunicorn.glogging.Logger``), warnings and up."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
        datefmt="[%Y-%m-%d %H:%M:%S %z]",
    )
