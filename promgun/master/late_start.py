"""What a master needs only once its first worker boots. The arbiter imports this after the first fork, and with it all
that workers do not need for a first answer, so that it does not delay that answer.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from promgun.config.client_directory import warn_of_unused_directory
from promgun.config.push_gateway import warn_of_visible_password
from promgun.config.worker_types import warn_of_preloaded_locks
from promgun.config.workers_user import warn_of_left_over_groups
from promgun.endpoint.process import push_final_page
from promgun.endpoint.supervisor import MetricsProcess
from promgun.instances.registration import Registration
from promgun.master.facts import facts_of
from promgun.store import late_app_metrics, late_upkeep

__all__ = ["load_ahead", "metrics_process_of", "push_final_page", "register", "warn"]


def load_ahead() -> None:
    """Import what all later workers need, as the first one does a moment after its boot."""
    late_app_metrics.load_ahead()
    late_upkeep.load_ahead()
    for name in ("_heartbeat_marks", "_task_dump"):
        import_module(f"promgun.workers.{name}")


def metrics_process_of(arbiter: Any, listeners: Sequence[socket.socket]) -> MetricsProcess:
    """Return the metrics process for these listeners, not started."""
    return MetricsProcess(arbiter.context.endpoint_config(arbiter.cfg), listeners, arbiter.log)


def warn(arbiter: Any) -> None:
    """Log what is probably not meant in the configuration."""
    warn_of_left_over_groups(arbiter.cfg, arbiter.log)
    warn_of_unused_directory(arbiter.cfg, arbiter.log)
    warn_of_preloaded_locks(arbiter.cfg, arbiter.app.worker_type, arbiter.log)
    warn_of_visible_password(arbiter.cfg, sys.argv, arbiter.log)


def register(arbiter: Any, *, started: float, metrics_addresses: tuple[str, ...]) -> None:
    """Write the master's facts into the store and the list of instances, for the page and ``promgun ps``."""
    facts = facts_of(arbiter, slot=arbiter.store.own_slot(), started=started, metrics_addresses=metrics_addresses)
    context = arbiter.context
    if context.registration is None:
        context.registration = Registration(context.directory)
    context.registration.announce(facts, arbiter.log)
