"""The final page of a server that does not live long enough to be scraped, pushed to a Pushgateway at its end.

https://github.com/prometheus/pushgateway: a PUT replaces all that was pushed before for the same job and instance.
The master imports this module, so what pushing needs is imported when it is done.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from promgun.config.push_gateway import Gateway, gateway_of
from promgun.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Seconds that an exit waits for the Pushgateway, name resolution included.
DEADLINE = 3.0
#: Of a server that has ended, on purpose: it would be said to be up for as long as the Pushgateway keeps the page.
_OF_THE_LIVING = frozenset({"gunicorn_up"})
_REASON = 200


@dataclass(frozen=True, slots=True)
class _Page:
    """What was collected, as prometheus_client's push functions ask for it."""

    families: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def push_final_page(cfg: Any, store: Path, log: Any) -> None:
    """Push what a store holds where ``--push-gateway`` says; without it do nothing. ``cfg`` is Gunicorn's."""
    try:
        gateway = gateway_of(cfg)
    except ConfigurationError as error:
        log.error("The final metrics could not be pushed: %s", error)
        return
    if gateway is None:
        return
    from promgun.collect.page import Collector  # noqa: PLC0415 - see above

    push(gateway, cfg.push_gateway_job or cfg.proc_name, Collector(store, log.warning).collect(), log)


def push(gateway: Gateway, job: str, families: Iterable[Metric], log: Any, *, deadline: float = DEADLINE) -> bool:
    """Push a page under ``job`` and this host's name, and log in one line how it went; returns whether it arrived.

    User and password are sent as basic authentication and never logged. Returns after ``deadline`` seconds
    at the latest, whatever the network does.
    """
    instance = socket.gethostname()
    page = _Page([family for family in families if family.name not in _OF_THE_LIVING])
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


def _send(gateway: Gateway, job: str, instance: str, page: Any, timeout: float, failures: list[str]) -> None:
    """Push, and put what went wrong in place of ``failures``."""
    from http.client import HTTPException  # noqa: PLC0415 - see above
    from urllib.error import HTTPError  # noqa: PLC0415 - see above

    from prometheus_client.exposition import basic_auth_handler, default_handler, push_to_gateway  # noqa: PLC0415 - same

    def authenticated(**request: Any) -> Any:
        return basic_auth_handler(**request, username=gateway.username, password=gateway.password)

    handler = default_handler if gateway.username is None else authenticated
    try:
        push_to_gateway(gateway.url, job, page, {"instance": instance}, timeout, handler)
    except HTTPError as error:
        # It says in the body why it refused a page.
        failures[:] = [_line(f"{error.code} {error.reason} {error.read(_REASON).decode(errors='replace')}")]
    except (OSError, HTTPException, ValueError) as error:
        failures[:] = [_line(str(error)) or type(error).__name__]
    else:
        failures.clear()


def _line(text: str) -> str:
    from promgun.terminal.output import printable  # noqa: PLC0415 - see above

    return printable(" ".join(text.split()))
