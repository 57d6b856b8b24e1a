"""Notices when code has changed what prometheus_client depends on: the variable of its directory, or its value class.

Neither makes a request fail, but metrics are then missing where somebody looks for them, so a warning tells of it.
"""

from __future__ import annotations

import contextlib
import os
import sys

from promgun.store.run_directory import MULTIPROC_VARIABLE, RunDirectory
from promgun.store.value_class_hook import VALUES_MODULE

_VARIABLE = (
    f"{MULTIPROC_VARIABLE} names %s, which promgun does not use: whoever reads that directory sees none of this "
    "server's metrics, and what is written there is not on its page. Set the variable before the start or in raw_env, "
    "without --metrics-dir"
)
_VALUE_CLASS = (
    "The application has replaced prometheus_client.values.ValueClass: metrics made since then are kept by that class. "
    f"They are on the page only as far as it writes files into ${MULTIPROC_VARIABLE}, as those of a process that "
    "promgun did not start"
)


def changed_settings(run: RunDirectory) -> dict[str, str]:
    """Return a warning for each setting that is not promgun's any more, by a name for it; never raises."""
    found = {}
    named = os.environ.get(MULTIPROC_VARIABLE)
    if named and not _is_any(named, [str(client) for client in run.clients]):
        found["variable"] = _VARIABLE % named
    values = sys.modules.get(VALUES_MODULE)
    if values is not None and not getattr(getattr(values, "ValueClass", None), "by_promgun", False):
        found["value-class"] = _VALUE_CLASS
    return found


def _is_any(named: str, clients: list[str]) -> bool:
    if named in clients:
        return True
    with contextlib.suppress(OSError):
        return os.path.realpath(named) in map(os.path.realpath, clients)
    return False


def is_first_of_run(run: RunDirectory, kind: str) -> bool:
    """Whether no process of the run has called this before for a ``kind`` of warning: all workers find the same."""
    try:
        mark = os.path.join(run.slots, f".warned-{kind}")
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
