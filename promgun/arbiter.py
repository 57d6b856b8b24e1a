"""Gunicorn's arbiter with what promgun owns: the master's metrics, the workers' slots, the metrics process.

Only methods that are safe to wrap in every supported version are overridden, always through ``super()``; nothing of
the signal machinery is touched.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from gunicorn import __version__ as gunicorn_version
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from promgun.endpoint.process import EndpointConfig
from promgun.errors import MetricsAddressError, PromgunError
from promgun.handover import Handover
from promgun.listeners import bind, close_and_unlink, metrics_url, parse_address
from promgun.metrics.instruments import Instruments, count_log
from promgun.metrics_process import MetricsProcess
from promgun.registration import Registration
from promgun.store.board import Cell, Role
from promgun.store.directory import StoreDirectory
from promgun.store.facts import MasterFacts
from promgun.store.process import ProcessStore
from promgun.store.slots import Slot


@dataclass(slots=True)
class RunContext:
    """What the launcher made for the arbiter: the store, and the metrics listeners bound before any fork."""

    store: ProcessStore
    directory: StoreDirectory
    listeners: list[socket.socket] = field(default_factory=list)
    metrics_bind: tuple[str, ...] = ()
    registration: Registration | None = None

    def close(self) -> None:
        """Leave nothing behind: run entry, sockets, directory. Workers pass here too and are told apart by pid."""
        if not self.directory.is_mine:
            return
        if self.registration is not None:
            self.registration.withdraw()
        for listener in self.listeners:
            close_and_unlink(listener)
        self.directory.close()


class PrometheusArbiter(Arbiter):  # type: ignore[misc] # gunicorn is untyped
    """The master of ``promgun run``."""

    def __init__(self, app: Any, context: RunContext) -> None:
        """Take a slot before anything of the user's is loaded (``--preload`` loads in ``setup``)."""
        self.context = context
        self.store = context.store
        context.directory.adopt()
        self.store.own_slot(Role.MASTER)
        self.instruments = Instruments(self.store, app.cfg)
        count_log(self.instruments.counters)
        self.metrics_process: MetricsProcess | None = None
        self._slots: dict[int, Slot] = {}
        self._stopping = False
        self._executing = False
        os.register_at_fork(after_in_child=self._close_metrics_listeners)
        self._started = time.time()
        super().__init__(app)
        self.store.warn = self.log.warning
        if os.path.basename(sys.argv[0]) == "__main__.py":
            # ``python -m promgun``: running that file as a script would put the package's inside on sys.path.
            self.START_CTX["args"] = [sys.executable, "-m", "promgun", *sys.argv[1:]]

    def _close_metrics_listeners(self) -> None:
        """Close the metrics listeners in every child but the one that executes a new master."""
        if not self._executing:
            for listener in self.context.listeners:
                listener.close()

    # ---- start, stop

    def start(self) -> None:
        """Start as Gunicorn does, then show where the metrics are and start serving them."""
        super().start()
        if self.cfg.metrics_server:
            self.metrics_process = MetricsProcess(self._endpoint_config(), self.context.listeners, self.log)
            for listener in self.context.listeners:
                self.log.info("Metrics at: %s (%s)", metrics_url(listener), self.pid)
            self.metrics_process.ensure()
        self._introduce()

    def _endpoint_config(self) -> EndpointConfig:
        root = os.geteuid() == 0
        return EndpointConfig(
            store=str(self.context.directory.path),
            fds=tuple(listener.fileno() for listener in self.context.listeners),
            master_pid=os.getpid(),
            uid=self.cfg.uid if root else None,
            gid=self.cfg.gid if root else None,
            initgroups=self.cfg.initgroups,
        )

    def _introduce(self) -> None:
        """Write down who we are, for ``promgun ps``, the metrics page and ``metrics dump``."""
        slot = self.store.own_slot()
        facts = MasterFacts(
            slot=slot.number if slot is not None else 0,
            pid=os.getpid(),
            started=self._started,
            name=self.cfg.settings["proc_name"].get() or str(self.app.app_uri),
            application=str(self.app.app_uri),
            worker_type=self.app.worker_type,
            gunicorn=gunicorn_version,
            addresses=self._addresses(),
            metrics_addresses=tuple(metrics_url(listener) for listener in self.context.listeners),
            max_label_sets=self.cfg.metrics_max_label_sets,
        )
        if self.context.registration is None:
            self.context.registration = Registration(self.context.directory)
        self.context.registration.announce(facts, self.log)

    def _addresses(self) -> tuple[str, ...]:
        if self.LISTENERS:
            return tuple(str(listener) for listener in self.LISTENERS)
        # --reuse-port: every worker binds for itself
        scheme = "https" if self.cfg.is_ssl else "http"
        return tuple(
            f"{scheme}://{address[0]}:{address[1]}" if isinstance(address, tuple) else f"unix:{address}"
            for address in self.cfg.address
        )

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - Gunicorn's signature
        """Stop the workers, then, last of all, the metrics process: scrapes answer while workers drain."""
        self._stopping = True
        super().stop(graceful)
        if self.metrics_process is not None:
            self.metrics_process.stop()
            self.metrics_process = None

    def run(self) -> None:
        """Run until stopped."""
        try:
            super().run()
        except HaltServer as halt:
            # A second worker failed to boot while the first failure was being handled.
            self.halt(reason=halt.reason, exit_status=halt.exit_status)

    # ---- workers

    def spawn_worker(self) -> Any:
        """Fork a worker, and count it."""
        pid = super().spawn_worker()
        self.instruments.counters.inc("gunicorn_worker_spawns_total")
        slot = getattr(self.WORKERS.get(pid), "slot", None)
        if slot is not None:
            self._slots[pid] = slot
        return pid

    def reap_workers(self) -> None:
        """Reap the metrics process by pid, then the workers; free the slots of those that are gone."""
        if self.metrics_process is not None:
            self.metrics_process.reap()
        try:
            super().reap_workers()
        except HaltServer:
            if not self._stopping:
                raise
            # While stopping, one more failed boot changes nothing: go on with the others.
            self.reap_workers()
        finally:
            self._settle_slots()

    def _settle_slots(self) -> None:
        gone = [pid for pid in self._slots if pid not in self.WORKERS]
        for pid in gone:
            slot = self._slots.pop(pid)
            slot.clear()
            self.store.forget([slot])

    def manage_workers(self) -> None:
        """Keep the number of workers, and everything of ours that needs care now and then."""
        self.store.board.cells[Cell.TARGET] = self.num_workers
        super().manage_workers()
        self._settle_slots()
        self.instruments.retry()
        if self.metrics_process is not None and not self._stopping:
            self.metrics_process.reap()
            self.metrics_process.ensure()

    # ---- reload, upgrade

    def reload(self) -> None:
        """Read the configuration again; a bad one is refused with a log line and the server goes on."""
        before = self.cfg
        try:
            super().reload()
        except PromgunError as error:
            os.environ.update(before.env)
            self.log.error("Reload refused, the running configuration stays: %s", error)
            return
        self._reload_metrics()
        self._introduce()

    def _reload_metrics(self) -> None:
        wanted = tuple(self.cfg.metrics_bind) if self.cfg.metrics_server else ()
        if wanted != self.context.metrics_bind:
            try:
                fresh = [bind(parse_address(text), uid=self.cfg.uid, gid=self.cfg.gid) for text in wanted]
            except MetricsAddressError as error:
                self.log.error("The metrics address stays as it is: %s", error)
                return
            old, self.context.listeners = self.context.listeners, fresh
            self.context.metrics_bind = wanted
            if self.metrics_process is None:
                self.metrics_process = MetricsProcess(self._endpoint_config(), (), self.log)
            self.metrics_process.restart(self._endpoint_config(), fresh)
            for listener in old:
                close_and_unlink(listener)
            for listener in fresh:
                self.log.info("Metrics at: %s (%s)", metrics_url(listener), self.pid)

    def reexec(self) -> None:
        """Execute a new master, which goes on with our store and our metrics listeners."""
        descriptors = tuple(listener.fileno() for listener in self.context.listeners)
        handover = Handover(str(self.context.directory.path), self.context.directory.private, descriptors)
        environment = dict(self.cfg.env_orig)
        handover.to_environment(environment)
        self.cfg.env_orig, kept = environment, self.cfg.env_orig
        for listener in self.context.listeners:
            listener.set_inheritable(True)
        self._executing = True
        try:
            super().reexec()
        finally:
            self._executing = False
            self.cfg.env_orig = kept
            for listener in self.context.listeners:
                listener.set_inheritable(False)

    # ---- signals, counted where Gunicorn handles them: in the main loop

    def _count(self, name: str) -> None:
        self.instruments.counters.inc("gunicorn_master_signals_total", (name,))

    def handle_hup(self) -> None:
        """Count SIGHUP."""
        self._count("hup")
        super().handle_hup()

    def handle_int(self) -> None:
        """Count SIGINT."""
        self._count("int")
        super().handle_int()

    def handle_quit(self) -> None:
        """Count SIGQUIT."""
        self._count("quit")
        super().handle_quit()

    def handle_term(self) -> None:
        """Count SIGTERM."""
        self._count("term")
        super().handle_term()

    def handle_ttin(self) -> None:
        """Count SIGTTIN."""
        self._count("ttin")
        super().handle_ttin()

    def handle_ttou(self) -> None:
        """Count SIGTTOU."""
        self._count("ttou")
        super().handle_ttou()

    def handle_usr1(self) -> None:
        """Count SIGUSR1."""
        self._count("usr1")
        super().handle_usr1()

    def handle_usr2(self) -> None:
        """Count SIGUSR2."""
        self._count("usr2")
        super().handle_usr2()

    def handle_winch(self) -> None:
        """Count SIGWINCH."""
        self._count("winch")
        super().handle_winch()
