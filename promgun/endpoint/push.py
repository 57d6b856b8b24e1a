"""The final page of a server that does not live long enough to be scraped, pushed to a Pushgateway at its end.

https://github.com/prometheus/pushgateway: a PUT replaces all that was pushed before for the same job and instance.
It runs in a process of its own, as the workers' user (:func:`promgun.endpoint.process.push_final_page`).
"""

from __future__ import annotations

import codecs
import logging
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Thread
from typing import Any
from urllib.error import HTTPError

from prometheus_client.core import Metric
from prometheus_client.exposition import basic_auth_handler, default_handler, push_to_gateway

from promgun.config.gateway import Gateway
from promgun.terminal.output import printable

#: Seconds that an exit waits for the Pushgateway, name resolution included.
DEADLINE = 3.0
#: Not pushed: a Pushgateway would show the ended server as up for as long as it keeps the page.
_NOT_PUSHED = frozenset({"gunicorn_up"})
_REASON = 200


@dataclass(frozen=True, slots=True)
class _Page:
    """What was collected, as prometheus_client's push functions ask for it."""

    families: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


class Lines:
    """A log that keeps its lines, each with its level, for the master to write."""

    def __init__(self) -> None:
        self.written: list[tuple[int, str]] = []

    def info(self, text: str, *arguments: object) -> None:
        """Keep a line of what went well."""
        self.written.append((logging.INFO, text % arguments))

    def error(self, text: str, *arguments: object) -> None:
        """Keep a line of what went wrong."""
        self.written.append((logging.ERROR, text % arguments))


def push(gateway: Gateway, job: str, families: Iterable[Metric], log: Any, *, deadline: float = DEADLINE) -> bool:
    """Push a page under ``job`` and this host's name, and log in one line how it went; returns whether it arrived.

    User and password are sent as basic authentication and never logged. Returns after ``deadline`` seconds
    at the latest, whatever the network does.
    """
    instance = socket.gethostname()
    page = _Page([family for family in families if family.name not in _NOT_PUSHED])
    failures = ["no answer"]
    # Timeouts of sockets bound neither looking up a name nor an answer that trickles in.
    sender = Thread(target=_send, args=(gateway, job, instance, page, deadline, failures), name="push", daemon=True)
    sender.start()
    sender.join(deadline)
    if failures:
        late = f" within {deadline:g} s" if sender.is_alive() else ""
        log.error("The final metrics could not be pushed to %s: %s%s", gateway.url, failures[0], late)
        return False
    log.info("Final metrics pushed to %s (job %s, instance %s)", gateway.url, job, instance)
    return True


def load_ahead() -> None:
    """Load what is loaded only when a connection is made: the codec for names of hosts."""
    codecs.lookup("idna")


def _send(gateway: Gateway, job: str, instance: str, page: Any, timeout: float, failures: list[str]) -> None:
    """Push, and put what went wrong in place of ``failures``."""

    def authenticated(**request: Any) -> Any:
        return basic_auth_handler(**request, username=gateway.username, password=gateway.password)

    handler = default_handler if gateway.username is None else authenticated
    try:
        push_to_gateway(gateway.url, job, page, {"instance": instance}, timeout, handler)
    except HTTPError as error:
        # It says in the body why it refused a page.
        with error:
            failures[:] = [_line(f"{error.code} {error.reason} {error.read(_REASON).decode(errors='replace')}")]
    except Exception as error:  # noqa: BLE001 - nobody else would tell of an error in this thread
        failures[:] = [_line(str(error)) or type(error).__name__]
    else:
        failures.clear()


def _line(text: str) -> str:
    return printable(" ".join(text.split()))
