"""The set-up when ``gunicorn``, not ``promgun run``, is the launcher: ``gunicorn -k promgun.PrometheusWorker app``."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gunicorn import __version__ as gunicorn_version

from promgun import __version__ as promgun_version
from promgun.config.collectors import collectors_from
from promgun.config.listeners import close_and_unlink, metrics_url
from promgun.config.series_options import series_options_from, wants_request_cpu
from promgun.config.unique_memory import unique_memory_from
from promgun.config.web_options import WebOptions
from promgun.config.workers_user import warn_of_left_over_groups
from promgun.endpoint.process import EndpointConfig
from promgun.endpoint.supervisor import MetricsProcess
from promgun.instances.registration import Registration
from promgun.store import late_app_metrics, late_upkeep
from promgun.store.board import Cell, Role
from promgun.store.master_info import MasterFacts
from promgun.store.new_file import Owner
from promgun.store.process import ProcessStore
from promgun.store.run_directory import MULTIPROC_VARIABLE
from promgun.store.run_places import create_private
from promgun.workers._fork_signals import DEFERRED_SIGNALS

#: Names the directory that this module put into ``PROMETHEUS_MULTIPROC_DIR``; without it a master executed by SIGUSR2
#: would believe that the user had set that.
_PUBLISHED = "PROMGUN_STORE"


class StandaloneRun:
    """The store and the registration of a plain Gunicorn master.

    Made when Gunicorn first loads the worker class, which is before ``--preload`` loads the application.
    """

    def __init__(self, store: ProcessStore) -> None:
        named = os.environ.get(MULTIPROC_VARIABLE)
        second_client = Path(named).absolute() if named and named != os.environ.get(_PUBLISHED) else None
        self._store = store
        self._pid = os.getpid()
        self._started = time.time()
        self._registration: Registration | None = None
        self._process: MetricsProcess | None = None
        self._tls = False
        self._directory = create_private(Owner(), second_client=second_client)
        store.app.publish()
        store.open(self._directory)
        os.environ[_PUBLISHED] = str(self._directory.multiproc)
        atexit.register(self.close)
        DEFERRED_SIGNALS.install()
        late_app_metrics.load_ahead()
        late_upkeep.load_ahead()

    @property
    def wants_request_cpu(self) -> bool:
        """Whether the CPU time of requests is to be told."""
        return wants_request_cpu(os.environ)

    def endpoint_config(self, cfg: Any, web: WebOptions) -> EndpointConfig:
        """Return the configuration of a metrics process for this run, protected as ``web`` says."""
        root = os.geteuid() == 0
        return EndpointConfig(
            store=str(self._directory.path),
            master_pid=self._pid,
            uid=cfg.uid if root else None,
            gid=cfg.gid if root else None,
            initgroups=cfg.initgroups,
            web=web,
            app_collectors=collectors_from(os.environ, cfg),
            unique_memory=unique_memory_from(os.environ),
        )

    def serve(self, process: MetricsProcess, *, tls: bool) -> None:
        """Start a metrics process, which ``close`` stops; forked workers close its listeners.

        ``tls`` says whether it speaks TLS on TCP addresses.
        """
        self._process = process
        self._tls = tls
        os.register_at_fork(after_in_child=self._close_listeners)
        process.ensure()

    def _close_listeners(self) -> None:
        if self._process is not None:
            for listener in self._process.listeners:
                listener.close()

    def register(self, cfg: Any, app: Any, log: Any, sockets: Sequence[Any]) -> None:
        """Give the store to the workers' user and register the run; acts on the first call in the master only."""
        if self._registration is not None or os.getpid() != self._pid:
            return
        warn_of_left_over_groups(cfg, log)
        if os.geteuid() == 0:
            self._directory.give_to(Owner(cfg.uid, cfg.gid))
        slot = self._store.own_slot(Role.MASTER)
        self._store.board.cells[Cell.TARGET] = cfg.workers
        application = str(getattr(app, "app_uri", "") or cfg.wsgi_app or "")
        self._registration = Registration(self._directory)
        facts = MasterFacts(
            slot=slot if slot is not None else 0,
            pid=self._pid,
            started=self._started,
            name=cfg.settings["proc_name"].get() or application or "gunicorn",
            application=application,
            worker_type=cfg.worker_class_str,
            gunicorn=gunicorn_version,
            promgun=promgun_version,
            addresses=tuple(str(listener) for listener in sockets),
            metrics_addresses=(
                tuple(metrics_url(listener, tls=self._tls) for listener in self._process.listeners)
                if self._process is not None
                else ()
            ),
            **series_options_from(os.environ, log.warning),
        )
        self._registration.announce(facts, log)

    def close(self) -> None:
        """Remove what this run made; does nothing in a worker, which runs its master's exit functions as well."""
        if os.getpid() != self._pid:
            return
        if self._registration is not None:
            self._registration.withdraw()
        if self._process is not None:
            self._process.stop()
            for listener in self._process.listeners:
                close_and_unlink(listener)
        self._store.flush()
        self._store.close()
