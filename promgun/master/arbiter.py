"""Gunicorn's arbiter with promgun's additions: the master's metrics, the workers' slots, the metrics process.

Only methods that are safe to wrap in every supported version are overridden, always through ``super()``; nothing of
the signal machinery is touched.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from gunicorn import arbiter as arbiter_module
from gunicorn import systemd, version_info
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from promgun.config.listeners import metrics_url
from promgun.errors import PromgunError
from promgun.master.context import RunContext
from promgun.master.idle_passes import IdlePasses
from promgun.master.password_masking import mask_in_worker
from promgun.master.signal_counts import CountsSignals
from promgun.master.watchdog import StackDumpWatchdog
from promgun.metrics.families.master import RELOADS, WORKER_BOOT_SECONDS, WORKER_SPAWNS
from promgun.metrics.families.requests import REQUEST_QUEUE_SECONDS
from promgun.metrics.instruments import Instruments
from promgun.metrics.label_values import ExitCause, QueueSource, ReloadResult
from promgun.metrics.log_counter import count_log
from promgun.store.board import Cell, Role
from promgun.store.run_directory import FORMAT
from promgun.store.slot_lock import SlotLock
from promgun.system.imports import collection_waits
from promgun.workers._fork_signals import DEFERRED_SIGNALS

if TYPE_CHECKING:
    from promgun.endpoint.supervisor import MetricsProcess
    from promgun.master.reaper import WorkerEnds

#: Seconds to wait at the end for workers that were killed, and seconds between two checks.
_KILLED_END, _PAUSE = 1.0, 0.01


class PrometheusArbiter(CountsSignals, IdlePasses, StackDumpWatchdog, Arbiter):  # type: ignore[misc] # gunicorn is untyped
    """The master of ``promgun run``: what no worker needs for its first answer is done after the first fork."""

    def __init__(self, app: Any, context: RunContext) -> None:
        """Take a slot before ``--preload`` loads the application (in ``setup``)."""
        self.app, self.cfg, self.log = app, app.cfg, None
        self.context, self.store = context, context.store
        context.directory.close_in_this_process()
        self.store.own_slot(Role.MASTER)
        self.instruments = Instruments(self.store, app.cfg)
        count_log(self.instruments.counters)
        self.metrics_process: MetricsProcess | None = None
        self._stopping = self._executing = self._is_complete = False
        self._intent = ExitCause.SCALE_IN
        os.register_at_fork(after_in_child=self._after_fork_in_child)
        DEFERRED_SIGNALS.install()
        self._started = time.time()
        super().__init__(app)
        count_log(self.instruments.counters, self.log)
        self.store.warn = self.log.warning
        self.instruments.histograms.touch(WORKER_BOOT_SECONDS, ())
        for source in QueueSource:
            self.instruments.histograms.touch(REQUEST_QUEUE_SECONDS, (source,))
        if os.path.basename(sys.argv[0]) == "__main__.py":
            # ``python -m promgun``: running that file as a script would put the package's own folder on sys.path.
            self.START_CTX["args"] = [sys.executable, "-m", "promgun", *sys.argv[1:]]

    @cached_property
    def ends(self) -> WorkerEnds:
        """What follows workers to their reap; made behind the pause after the first fork, for those there are."""
        with collection_waits(freeze=False):
            from promgun.master.reaper import WorkerEnds  # noqa: PLC0415 - not before the first fork
            from promgun.store.run_reader import read_slot_board  # noqa: PLC0415 - same

        read_board = partial(read_slot_board, self.context.directory)
        table, cgroup_dir = self.store.worker_table, self.cfg.cgroup_dir
        ends = WorkerEnds(self.instruments, cgroup_dir, self.log, table, read_board, self._release)
        for pid, worker in self.WORKERS.items():
            ends.on_fork(pid, worker)
        return ends

    def _after_fork_in_child(self) -> None:
        """Close the metrics listeners and mask passwords in every child except one that executes a new master."""
        if not self._executing:
            self.context.close_listeners()
            mask_in_worker(self)

    # ---- start, stop

    def start(self) -> None:
        """Start as Gunicorn does, then log where the metrics are; they are served once a worker has booted."""
        super().start()
        if "succession" in vars(self.context):
            # Made, and so asked for, before the first fork: the old master's store cannot be used.
            self.context.succession.announce(self.log)
        self._log_metrics_addresses()

    def _complete_start(self) -> None:
        """Once, a moment after the first fork: import what is needed from now on, and show this server to others."""
        if self._is_complete:
            return
        self._is_complete = True
        with collection_waits(freeze=False):
            from promgun.master import late_start  # noqa: PLC0415 - not before the first fork

            late_start.load_ahead()
        late_start.warn(self)
        self.ends  # noqa: B018 - made now, for the first worker
        if self.cfg.metrics_server:
            self.metrics_process = late_start.metrics_process_of(self, self._metrics_listeners())
        self._register()

    def _metrics_listeners(self) -> tuple[socket.socket, ...]:
        return tuple(self.context.live_listeners(self.cfg, self.log).values())

    def _log_metrics_addresses(self) -> None:
        for url in self._metrics_urls():
            self.log.info("Metrics at: %s (%s)", url, self.pid)

    def _metrics_urls(self) -> tuple[str, ...]:
        return tuple(metrics_url(listener, tls=self.context.tls) for listener in self._metrics_listeners())

    def _register(self) -> None:
        from promgun.master.late_start import register  # noqa: PLC0415 - not before the first fork

        register(self, started=self._started, metrics_addresses=self._metrics_urls())

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - Gunicorn's signature
        """Stop the workers, then, last of all, the metrics process: scrapes answer while workers drain."""
        first, self._stopping, self._intent = not self._stopping, True, ExitCause.SHUTDOWN
        if self.reexec_pid:
            # systemd follows the new master from here on (sd_notify(3)).
            systemd.sd_notify(f"MAINPID={self.reexec_pid}", self.log)
        super().stop(graceful)
        self._reap_killed()
        self.store.flush()
        if first and not self.reexec_pid and (not self.master_pid or self.master_pid != os.getppid()):
            # No other master goes on counting (Gunicorn notices only after a while that the old one has ended).
            from promgun.master.late_start import push_final_page  # noqa: PLC0415 - not before the first fork

            push_final_page(self.context.endpoint_config(self.cfg), self.cfg, self.log)
        if self.metrics_process is not None:
            self.metrics_process.stop()
            self.metrics_process = None

    def _reap_killed(self) -> None:
        """Wait for workers that Gunicorn killed at the end of ``stop``: its last, non-blocking reap comes too early."""
        deadline = time.monotonic() + _KILLED_END
        while self.WORKERS and time.monotonic() < deadline:
            self.reap_workers()
            time.sleep(_PAUSE)

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
        if self.WORKERS:
            # Before the second fork, not after the first, whose worker boots meanwhile: Gunicorn waits between them.
            self._complete_start()
        try:
            pid = super().spawn_worker()
        except KeyboardInterrupt:
            if os.getpid() == self.pid:
                raise
            # Raised by the application; Gunicorn (25.3 to 27.0) would have this worker go on as a second master.
            self.log.exception("Exception in worker process")
            raise SystemExit(-1) from None
        self.instruments.counters.inc(WORKER_SPAWNS, ())
        if "ends" in vars(self):
            self.ends.on_fork(pid, self.WORKERS.get(pid))
        return pid

    def kill_worker(self, pid: int, sig: int) -> None:
        """Signal a worker, and remember the reason."""
        self.ends.signalled(pid, sig, self._intent, self.cfg.graceful_timeout)
        if sig == signal.SIGABRT:
            self.ask_for_stacks(pid, self.WORKERS.get(pid))
            self.ends.timing_out(pid)
        super().kill_worker(pid, sig)

    def reap_workers(self) -> None:
        """Reap the metrics process by pid, then the workers; free the slots of those that are gone."""
        if self.metrics_process is not None:
            self.metrics_process.reap()
        arbiter_module.os = self.ends.recorded_os
        try:
            super().reap_workers()
        except HaltServer:
            if not self._stopping:
                raise
            # While stopping, another failed boot changes nothing: continue with the other workers.
            self.reap_workers()
        finally:
            arbiter_module.os = os
            self._account_for_ended()

    def _release(self, slot: SlotLock) -> None:
        self.store.forget([slot])
        self.context.directory.wake_upkeep()

    def _account_for_ended(self) -> None:
        self.ends.classify_ended(self.WORKERS)
        self.forget_silence()

    def tend(self) -> None:
        """Retry what found no space in the store, write the master's values, restart a metrics process that ended."""
        self._complete_start()
        self._account_for_ended()
        self.instruments.retry()
        self.store.flush()
        if self.metrics_process is None or self._stopping:
            return
        if self.first_start.is_due(self.context.directory, self.WORKERS.values()):
            self.context.succession.serve(self.metrics_process, self.context.directory, self.reexec_pid)

    # ---- reload, upgrade

    def reload(self) -> None:
        """Read the configuration again; one that cannot be applied as a whole is refused, and the old one stays."""
        before = self.cfg
        self._intent = ExitCause.RELOAD
        try:
            super().reload()
        except PromgunError as error:
            os.environ.update(before.env)
            self.log.error("Reload refused, the running configuration stays: %s", error)
            self.instruments.counters.inc(RELOADS, (ReloadResult.FAILED,))
            return
        finally:
            self._intent = ExitCause.SCALE_IN
        # 27.0 keeps the old logger settings where the new ones cannot be used; 25.3 does not read them again.
        whole = version_info < (27,) or getattr(self.log, "cfg", self.cfg) is self.cfg
        self.instruments.counters.inc(RELOADS, (ReloadResult.OK if whole else ReloadResult.FAILED,))
        self.store.board.cells[Cell.LAST_RELOAD] = int(time.time())
        self._reload_metrics_process()
        self._register()

    def _reload_metrics_process(self) -> None:
        """Have the metrics process serve on the reloaded listeners; it is not restarted if nothing changed for it."""
        config, listeners = self.context.endpoint_config(self.cfg), self._metrics_listeners()
        if self.metrics_process is None:
            from promgun.master.late_start import metrics_process_of  # noqa: PLC0415 - not before the first fork

            self.metrics_process = metrics_process_of(self, ())
        same = listeners == self.metrics_process.listeners and config == self.metrics_process.config
        if same and not config.app_collectors.names:  # whose code may be new
            return
        moved = (listeners, config.web) != (self.metrics_process.listeners, self.metrics_process.config.web)
        self.metrics_process.restart(config, listeners)
        self.context.close_dropped()
        if moved:
            self._log_metrics_addresses()

    def reexec(self) -> None:
        """Execute a new master (SIGUSR2), which continues with our store and our metrics listeners."""
        directory, listeners = self.context.directory, self._metrics_listeners()
        from promgun.config.reexec import Handover  # noqa: PLC0415 - for an upgrade only

        handover = Handover(
            store=directory.path,
            private=directory.private,
            format=FORMAT,
            identity=directory.identity,
            second_client=directory.second_client,
            listeners=self.context.listeners,
            activated=self.context.activated,
        )
        self.cfg.env_orig, kept = dict(self.cfg.env_orig), self.cfg.env_orig
        handover.to_environment(self.cfg.env_orig)
        for listener in listeners:
            listener.set_inheritable(True)
        self._executing = True
        try:
            super().reexec()
        finally:
            self._executing = False
            self.cfg.env_orig = kept
            for listener in listeners:
                listener.set_inheritable(False)
