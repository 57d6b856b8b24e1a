"""The closed sets of label values, each an enum; they are defined only here and in ``late_label_values``."""

from __future__ import annotations

from enum import Enum


class LabelValue(str, Enum):
    """A label value: a ``str`` that formats as its value in text, JSON and keys of the store."""

    # Enum's own format would be "ExitCause.OOM" (Python 3.10 to 3.14)
    __str__ = str.__str__


class ExitCause(LabelValue):
    """Why a worker ended: ``cause`` of ``gunicorn_worker_exits_total`` and ``gunicorn_requests_lost_total``."""

    MAX_REQUESTS = "max_requests"
    RELOAD = "reload"
    SCALE_IN = "scale_in"
    SHUTDOWN = "shutdown"
    TIMEOUT = "timeout"
    GRACEFUL_TIMEOUT = "graceful_timeout"
    OOM = "oom"
    SEGFAULT = "segfault"
    KILLED = "killed"
    OTHER_SIGNAL = "other_signal"
    BOOT_ERROR = "boot_error"
    APP_LOAD_ERROR = "app_load_error"
    APP_EXIT = "app_exit"
    PARENT_LOST = "parent_lost"

    @property
    def unclean(self) -> bool:
        """Whether nobody asked for this end: running requests are lost, and the alert on exits counts it."""
        return self not in _WANTED


_WANTED = frozenset({ExitCause.MAX_REQUESTS, ExitCause.RELOAD, ExitCause.SCALE_IN, ExitCause.SHUTDOWN})


class WorkerCount(LabelValue):
    """Which workers are counted: ``state`` of ``gunicorn_workers``."""

    TARGET = "target"
    ALIVE = "alive"
    BOOTED = "booted"


class MasterSignal(LabelValue):
    """The signals that Gunicorn's master handles by a method ``handle_<signal>`` (gunicorn 25.3 to 27.0)."""

    HUP = "hup"
    INT = "int"
    QUIT = "quit"
    TERM = "term"
    TTIN = "ttin"
    TTOU = "ttou"
    USR1 = "usr1"
    USR2 = "usr2"
    WINCH = "winch"


class ReloadResult(LabelValue):
    """How a reload by SIGHUP, or of the endpoint's web configuration, went."""

    OK = "ok"
    FAILED = "failed"


class LogLevel(LabelValue):
    """The levels of Gunicorn's error log, as :mod:`logging` names them, in lower case."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class StoreErrorReason(LabelValue):
    """Why a value could not be stored or read."""

    NO_SPACE = "no_space"
    CORRUPT = "corrupt"
    VANISHED = "vanished"
    PERMISSION = "permission"


class DisconnectPhase(LabelValue):
    """What was being sent when the client left."""

    REQUEST = "request"
    RESPONSE = "response"


class UnansweredReason(LabelValue):
    """Why a request was left without a status line, by a worker that went on."""

    STOP_ITERATION = "stop_iteration"  #: the application raised StopIteration, which Gunicorn takes for an end
    SYSTEM_EXIT = "system_exit"  #: it left by sys.exit, in a class that answers nothing then
    OS_ERROR = "os_error"  #: it raised an OSError, which Gunicorn takes for a client that left
    CLIENT_LEFT = "client_left"  #: the client left in the middle of a chunked body
    OTHER = "other"


class QueueSource(LabelValue):
    """The source of a queue time: the kernel (TCP_INFO), or a proxy's header."""

    KERNEL = "kernel"
    PROXY = "proxy"


class CpuMode(LabelValue):
    """Where CPU time was spent."""

    USER = "user"
    SYSTEM = "system"


class WebsocketResult(LabelValue):
    """What became of a request for a websocket."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED = "failed"


class MessageDirection(LabelValue):
    """Who sent a message of a websocket, as the server sees it."""

    RECEIVED = "received"
    SENT = "sent"
