"""What a master holds while it runs: its store, its metrics listeners, its entry in the list of instances."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from promgun.config.listeners import NO_LISTENERS, Listeners, bind_all, close_and_unlink, is_lost
from promgun.config.metrics_addresses import parse_address
from promgun.errors import MetricsAddressError
from promgun.store.process import ProcessStore
from promgun.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from promgun.endpoint.process import EndpointConfig
    from promgun.instances.registration import Registration
    from promgun.master.succession import Succession

#: The settings that name files which protect the metrics endpoint.
_PROTECTING = ("metrics_web_config", "metrics_certfile", "metrics_keyfile", "metrics_bearer_token_file")


class RunContext:
    """The resources that the launcher opens for the application and its arbiter; a reload may change the listeners.

    It is made before the configuration is read, and holds nothing until :meth:`open`: the configuration decides what
    is opened.
    """

    def __init__(self, store: ProcessStore) -> None:
        self.store = store
        self.registration: Registration | None = None
        self.listeners: Listeners = NO_LISTENERS
        #: Listeners that the last reload no longer wants; the metrics process still serves them.
        self.dropped: Sequence[socket.socket] = ()
        #: Whether the metrics process speaks TLS on TCP addresses.
        self.tls = False
        self.control_socket = ""
        self._activated = False
        self._directory: RunDirectory | None = None

    @cached_property
    def succession(self) -> Succession:
        """What decides which of two masters serves."""
        from promgun.master.succession import Succession  # noqa: PLC0415 - not before the first fork: see ``Arbiter``

        return Succession()

    @property
    def directory(self) -> RunDirectory:
        """The store's directory; there is one only after :meth:`open`."""
        assert self._directory is not None, "the store is not open"  # noqa: S101 - an order of ours
        return self._directory

    @property
    def activated(self) -> bool:
        """Whether systemd passed the metrics listeners: then ``metrics_bind`` is not used."""
        return self._activated

    @property
    def is_open(self) -> bool:
        """Whether there is a store; a process that only checks the configuration has none."""
        return self._directory is not None

    def open(self, directory: RunDirectory, listeners: Listeners, *, activated: bool) -> None:
        """Keep the directory and the listeners of this run, and let the store write."""
        self.store.open(directory)
        self._directory = directory
        self.listeners = listeners
        self._activated = activated
        # A control socket for this run: Gunicorn (since 25.1) uses one path per user.
        safe = directory.private or os.geteuid() != 0
        folder = directory.master if safe else directory.own_master
        self.control_socket = str(folder / f"gunicorn-{os.getpid()}.ctl")

    def listen_again(self, cfg: Any) -> None:
        """Bind the addresses of a reloaded configuration; unwanted listeners move to ``dropped``, still open.

        Raises :class:`MetricsAddressError`, and then nothing has changed.
        """
        if self._activated and cfg.metrics_server:
            return
        before = _live(self.listeners)
        self.listeners = listen(cfg, before)
        kept = set(self.listeners.values())
        self.dropped = [*self.dropped, *(listener for listener in before.values() if listener not in kept)]

    def live_listeners(self, cfg: Any, log: Any) -> Listeners:
        """Return the listeners, bound again where a hook has closed their descriptors (``os.closerange``); those that
        cannot be are left out. Never raises.
        """
        live = _live(self.listeners)
        if len(live) < len(self.listeners):
            outcome = "bound again"
            try:
                if self._activated:
                    outcome = "not served again: systemd made it"
                else:
                    live = listen(cfg, live)
            except MetricsAddressError as error:
                outcome = f"not served again: {error}"
            self.listeners = MappingProxyType(dict(live))
            log.warning("A metrics listener was closed by a hook or the application, and is %s", outcome)
        return self.listeners

    def endpoint_config(self, cfg: Any) -> EndpointConfig:
        """Return the configuration of this master's metrics process; its store is ``""`` until there is one."""
        from promgun.config.collectors import collectors_of  # noqa: PLC0415 - not before the first fork: see ``Arbiter``
        from promgun.config.web_options import web_options_of  # noqa: PLC0415 - same
        from promgun.endpoint.process import EndpointConfig  # noqa: PLC0415 - same

        root = os.geteuid() == 0
        return EndpointConfig(
            store=str(self.directory.path) if self.is_open else "",
            master_pid=os.getpid(),
            uid=cfg.uid if root else None,
            gid=cfg.gid if root else None,
            initgroups=cfg.initgroups,
            show_paths=cfg.metrics_show_paths,
            web=web_options_of(cfg),
            app_collectors=collectors_of(cfg),
            unique_memory=cfg.metrics_unique_memory,
        )

    def check_web(self, cfg: Any) -> bool:
        """Return whether the metrics will be served over TLS.

        Raises :class:`ConfigurationError` when the certificates or passwords that protect them cannot be used.
        """
        if not cfg.metrics_server or not any(cfg.settings[name].get() for name in _PROTECTING):
            return False
        from promgun.endpoint.process import check_web  # noqa: PLC0415 - only for these files

        return check_web(self.endpoint_config(cfg))

    def close_dropped(self) -> None:
        """Close listeners that are no longer wanted, and remove their socket files.

        Call it when the metrics process that served them has ended.
        """
        for listener in self.dropped:
            close_and_unlink(listener)
        self.dropped = ()

    def close_listeners(self) -> None:
        """Close all metrics listeners in a child of the master, without removing socket files."""
        for listener in (*self.listeners.values(), *self.dropped):
            listener.close()

    def close(self) -> None:
        """Remove the run's entry, its sockets and its directory; does nothing in a worker, which has another pid."""
        if not self.directory.is_mine:
            return
        self.store.flush()
        if self.registration is not None:
            self.registration.withdraw()
        self.close_dropped()
        for listener in self.listeners.values():
            close_and_unlink(listener)
        self.store.close()


def _live(listeners: Listeners) -> Listeners:
    """Return those that are open and ours. The others let go of their numbers, which Python would close with them."""
    for listener in listeners.values():
        if is_lost(listener):
            listener.close()
    return {place: listener for place, listener in listeners.items() if not is_lost(listener)}


def listen(cfg: Any, keep: Listeners = NO_LISTENERS) -> Listeners:
    """Listen on the configured addresses, keeping listeners that are in ``keep``; none with ``--no-metrics-server``.

    Raises :class:`MetricsAddressError`, with nothing bound.
    """
    wanted = cfg.metrics_bind if cfg.metrics_server else ()
    return bind_all(map(parse_address, wanted), keep=keep, uid=cfg.uid, gid=cfg.gid)
