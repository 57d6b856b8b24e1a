"""Starting the metrics process; light enough for the master to import."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promgun.config.collectors import AppCollectors
from promgun.config.listeners import is_lost
from promgun.config.push_gateway import gateway_of
from promgun.config.web_options import WebOptions
from promgun.errors import ConfigurationError
from promgun.metrics.defaults import UNIQUE_MEMORY_SECONDS

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

EXIT_FAILED = 70
"""The only exit code besides 0: EX_SOFTWARE. Up to Gunicorn 26.0 a child that exits with 3 or 4 halts the master."""

# macOS has no real-time signals. What stands in for them there must end the process until it is handled.
STOP_SIGNAL = getattr(signal, "SIGRTMIN", signal.SIGVTALRM)
"""Ends the process with 0, after the answers that are being given."""

IGNORED_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
"""What terminals and service managers send to a whole group, and what only the master may act on."""

COLLECTOR = "promgun.collect.page:Collector"
"""What reads the store, as module:name."""

PACKAGE_FOLDER = str(Path(__file__).parents[2])

# Python puts '' in front of the path for -c. A module in the user's working directory must not stand in for
# one of the standard library's or h11; promgun itself may well be there, so its folder comes back as the
# last.
#
# No garbage is collected while modules are imported, and what they made is never visited again: see main._load.
_CODE = f"""\
import gc, os, sys
gc.disable()
try:
    try:
        here = os.getcwd()
    except OSError:
        here = ""
    sys.path[:] = [folder for folder in sys.path if folder not in ("", here)] + [sys.argv[2]]
    from promgun.endpoint import main
    getattr(main, sys.argv[3] if sys.argv[3:] else "run")(sys.argv[1])
except BaseException:
    sys.excepthook(*sys.exc_info())
finally:
    os._exit({EXIT_FAILED})
"""

#: The third argument of a process that says in one line of JSON whether the web configuration can be used, and ends.
_CHECK = "check"
#: The same for one that pushes the final page to the gateway on its standard input, and says what to log.
_PUSH = "push_page"
_PUSH_SECONDS = 10.0
_CHECK_SECONDS = 30.0

# The process reads the store's files; prometheus_client must not take it for one that writes them.
_UNWANTED_ENVIRONMENT = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EndpointConfig:
    """What the metrics process is told, as one JSON argument.

    ``fds`` are its listening sockets; :func:`spawn` fills them in. ``uid`` and ``gid`` are the workers',
    ``None`` to stay who the master is; ``initgroups`` takes the user's other groups too. ``collector`` names
    a class made with the store's path, a log and ``unique_memory``, with ``collect()``, ``master_alive()`` and
    ``worker_booted()``.
    ``label`` is for readers of ``ps``. ``show_paths`` tells the status page those of running requests. ``web`` names
    what protects the endpoint; the metrics process opens it. ``app_collectors`` are the application's own.
    ``unique_memory`` is how often, in seconds, it reads that of each worker; 0 for never.
    """

    store: str
    master_pid: int
    fds: tuple[int, ...] = ()
    uid: int | None = None
    gid: int | None = None
    initgroups: bool = False
    collector: str = COLLECTOR
    label: str = ""
    show_paths: bool = False
    web: WebOptions = field(default_factory=WebOptions)
    app_collectors: AppCollectors = field(default_factory=AppCollectors)
    unique_memory: int = UNIQUE_MEMORY_SECONDS

    def to_json(self) -> str:
        """Return it as one line."""
        named = {"web": self.web._asdict(), "app_collectors": self.app_collectors._asdict()}
        return json.dumps(asdict(self) | named)

    @classmethod
    def from_json(cls, text: str) -> EndpointConfig:
        """Read what :meth:`to_json` wrote. Raises ``ValueError`` or ``TypeError`` for anything else."""
        values = json.loads(text)
        web = {**values["web"], "allowed_hosts": tuple(values["web"]["allowed_hosts"])}
        own = {name: tuple(value) for name, value in values["app_collectors"].items()}
        made = {"fds": tuple(values["fds"]), "web": WebOptions(**web), "app_collectors": AppCollectors(**own)}
        return cls(**{**values, **made})


def spawn(config: EndpointConfig, sockets: Sequence[socket.socket]) -> subprocess.Popen[bytes]:
    """Start the metrics process on these listening sockets: a fresh interpreter that inherits nothing else.

    Call it from the main thread, because the kernel ends the process with the thread that made it. The
    signals that it ignores, and the one that stops it, are held back until it is ready for them, so none can
    kill it as it starts. Poll the result to reap it. Raises ``OSError`` if no process can be made.
    """
    if any(map(is_lost, sockets)):
        # Its number may mean a socket of the application's now.
        raise OSError("a hook or the application has closed a metrics listener")
    fds = tuple(sock.fileno() for sock in sockets)
    environment = _environment()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*IGNORED_SIGNALS, STOP_SIGNAL})
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _CODE, replace(config, fds=fds).to_json(), PACKAGE_FOLDER],
            stdin=subprocess.DEVNULL,
            pass_fds=fds,
            env=environment,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_web(config: EndpointConfig) -> bool:
    """Return whether TCP listeners will speak TLS; raises :class:`ConfigurationError` when ``config.web`` is unusable.

    A process of the workers' user opens the files, like the one that will serve them. So this user's rights decide, and
    no secret stays in the master.
    """
    if not config.web.names_files:
        return False
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE, config.to_json(), PACKAGE_FOLDER, _CHECK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CHECK_SECONDS,
            check=False,
            env=_environment(),
        )
        answer = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise ConfigurationError(f"The web configuration cannot be checked: {error}") from error
    if "error" in answer:
        raise ConfigurationError(answer["error"], answer["hint"])
    return bool(answer["tls"])


def push_final_page(config: EndpointConfig, cfg: Any, log: Any) -> None:
    """Push the final page where ``--push-gateway`` says; without it do nothing. ``cfg`` is Gunicorn's; never raises.

    A process like the one that serves reads the store and pushes, as the workers' user: what workers have written is
    not parsed by a process with more rights.
    """
    try:
        gateway = gateway_of(cfg)
    except ConfigurationError as error:
        log.error("The final metrics could not be pushed: %s", error)
        return
    if gateway is None:
        return
    asked = {**gateway._asdict(), "job": cfg.push_gateway_job or cfg.proc_name}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE, config.to_json(), PACKAGE_FOLDER, _PUSH],
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            timeout=_PUSH_SECONDS,
            check=False,
            env=_environment(),
        )
        lines = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        log.error("The final metrics could not be pushed to %s: %s", gateway.url, error)
        return
    for level, text in lines:
        log.log(level, "%s", text)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _UNWANTED_ENVIRONMENT}
