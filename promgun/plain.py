"""What ``promgun run`` does otherwise, where plain Gunicorn is the launcher: ``gunicorn -k promgun.PrometheusWorker
app:app``.
"""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path
from typing import Any

from gunicorn import __version__ as gunicorn_version

from promgun.registration import Registration
from promgun.store.board import Role
from promgun.store.directory import StoreDirectory, create_private, take_over
from promgun.store.facts import MasterFacts
from promgun.store.files import Owner
from promgun.store.process import ProcessStore

#: What ``PROMETHEUS_MULTIPROC_DIR`` was before we published ours: a master executed by SIGUSR2 must not take ours for
#: the user's wish.
_PUBLISHED = "PROMGUN_STORE"


class PlainRun:
    """The store of a plain Gunicorn master; made when Gunicorn first loads the worker class, before ``--preload``."""

    def __init__(self, store: ProcessStore) -> None:
        named = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self._private = not named or named == os.environ.get(_PUBLISHED)
        self._store = store
        self._pid = os.getpid()
        self._started = time.time()
        self._registration: Registration | None = None
        self._directory: StoreDirectory = (
            create_private(Owner()) if self._private or named is None else take_over(Path(named).absolute(), Owner())
        )
        store.publish()
        store.open(self._directory)
        if self._private:
            os.environ[_PUBLISHED] = str(self._directory.path)
        atexit.register(self.close)

    def introduce(self, cfg: Any, app: Any, log: Any) -> None:
        """Give the store to the workers' user and register the run; called for every worker, acts on the first."""
        if self._registration is not None or os.getpid() != self._pid:
            return
        if os.geteuid() == 0:
            self._directory.give_to(Owner(cfg.uid, cfg.gid))
        slot = self._store.own_slot(Role.MASTER)
        application = str(getattr(app, "app_uri", "") or cfg.wsgi_app or "")
        self._registration = Registration(self._directory)
        facts = MasterFacts(
            slot=slot.number if slot is not None else 0,
            pid=self._pid,
            started=self._started,
            name=cfg.settings["proc_name"].get() or application or "gunicorn",
            application=application,
            worker_type=cfg.worker_class_str,
            gunicorn=gunicorn_version,
            addresses=tuple(
                f"http://{address[0]}:{address[1]}" if isinstance(address, tuple) else f"unix:{address}"
                for address in cfg.address
            ),
        )
        self._registration.announce(facts, log)

    def close(self) -> None:
        """Remove what this run made; workers run this at their exit too and are told apart by pid."""
        if os.getpid() != self._pid:
            return
        if self._registration is not None:
            self._registration.withdraw()
        self._directory.close()
