"""What the running master says of itself in the store, for the page, the status and ``promgun ps``."""

from __future__ import annotations

import os
from typing import Any

from gunicorn import __version__ as gunicorn_version

from promgun import __version__ as promgun_version
from promgun.config.series_options import series_options_of
from promgun.store.master_info import MasterFacts


def facts_of(arbiter: Any, *, slot: int | None, started: float, metrics_addresses: tuple[str, ...]) -> MasterFacts:
    """Return the facts of ``arbiter``, whose number among masters is ``slot``; ``started`` is Unix seconds."""
    app, cfg = arbiter.app, arbiter.cfg
    return MasterFacts(
        slot=slot if slot is not None else 0,
        pid=os.getpid(),
        started=started,
        name=cfg.settings["proc_name"].get() or str(app.app_uri),
        application=str(app.app_uri),
        worker_type=app.worker_type,
        gunicorn=gunicorn_version,
        promgun=promgun_version,
        addresses=_addresses(arbiter),
        metrics_addresses=metrics_addresses,
        max_label_sets=cfg.metrics_max_label_sets,
        **series_options_of(cfg),
    )


def _addresses(arbiter: Any) -> tuple[str, ...]:
    if arbiter.LISTENERS:
        return tuple(str(listener) for listener in arbiter.LISTENERS)
    # with --reuse-port every worker binds for itself
    scheme = "https" if arbiter.cfg.is_ssl else "http"
    return tuple(
        f"{scheme}://{address[0]}:{address[1]}" if isinstance(address, tuple) else f"unix:{address}"
        for address in arbiter.cfg.address
    )
