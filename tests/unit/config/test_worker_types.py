"""The table of worker types, and what a --worker-type leads to."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from gunicorn.workers.sync import SyncWorker

from promgun.config.worker_types import WORKER_TYPES, WorkerType, check_available, resolve, suggest
from promgun.errors import ExitCode, WorkerUnavailableError

NAMES = [worker_type.name for worker_type in WORKER_TYPES]


def test_names_in_the_order_of_the_documentation() -> None:
    assert NAMES == ["sync", "gthread", "gevent", "eventlet", "asgi", "uvicorn"]


@pytest.mark.parametrize("worker_type", WORKER_TYPES, ids=NAMES)
def test_every_spelling_of_a_type_leads_to_it(worker_type: WorkerType) -> None:
    spellings = [worker_type.name, f"egg:gunicorn#{worker_type.name}", worker_type.target, *worker_type.aliases]
    assert {resolve(spelling) for spelling in spellings} == {worker_type}


@pytest.mark.parametrize("worker_type", WORKER_TYPES, ids=NAMES)
def test_target_is_there(worker_type: WorkerType) -> None:
    module, _, _ = worker_type.target.rpartition(".")
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("worker_type", WORKER_TYPES, ids=NAMES)
def test_target_survives_gunicorns_exchange_of_threaded_sync_workers(worker_type: WorkerType) -> None:
    """Gunicorn puts its own plain class in the place of any path that ends so when threads > 1."""
    assert not worker_type.target.endswith("SyncWorker")


@pytest.mark.parametrize(
    "worker_class",
    [
        "sync",
        "egg:gunicorn#sync",
        "gunicorn.workers.sync.SyncWorker",
        "shop.workers.OwnSyncWorker",
        "promgun.PrometheusWorker",
    ],
)
def test_sync_with_threads_is_gthread(worker_class: str) -> None:
    found = resolve(worker_class, threads=4)
    assert found is not None
    assert found.name == "gthread"


def test_other_types_keep_their_kind_with_threads() -> None:
    assert [found.name for name in NAMES[1:] if (found := resolve(name, threads=4))] == NAMES[1:]


@pytest.mark.parametrize("worker_class", ["tornado", "shop.workers.Own", "uvicorn.workers.UvicornWorker", dict])
def test_unknown_class_is_for_mixing_in(worker_class: str | type) -> None:
    assert resolve(worker_class) is None


def test_class_object_is_known_by_its_path() -> None:
    found = resolve(SyncWorker, threads=4)
    assert found is not None
    assert found.name == "sync", "Gunicorn exchanges paths only, never a class"


def test_missing_library_names_the_extra() -> None:
    absent = WorkerType(name="warp", target="x.Y", requires=("sys", "no_such_library"), extra="warp", summary="")
    with pytest.raises(WorkerUnavailableError, match=r"pip install 'promgun\[warp\]'") as caught:
        check_available(absent)
    assert "no_such_library" in caught.value.message
    assert "sys" not in caught.value.message
    assert caught.value.exit_code == ExitCode.WORKER_BOOT


def test_looking_for_libraries_imports_none() -> None:
    code = (
        "import sys; from contextlib import suppress; from promgun.config.worker_types import *\n"
        "for kind in WORKER_TYPES:\n"
        "    with suppress(WorkerUnavailableError): check_available(kind)\n"
        "print({'gevent', 'eventlet', 'packaging', 'gunicorn'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("gevnt", "gevent"), ("GThread", "gthread"), ("asynk", "sync"), ("zzz", None)]
)
def test_suggestion(typed: str, meant: str | None) -> None:
    assert suggest(typed) == meant
