"""The closed sets of label values; they are defined only here and in ``late_label_values``."""

from __future__ import annotations

from promgun.system.closed_set import ClosedSet, Member


class LabelValue(str, metaclass=ClosedSet):
    """A label value: a ``str`` that formats as its value in text, JSON and keys of the store."""

    __slots__ = ("name",)
    name: str


class ExitCause(LabelValue):
    """Why a worker ended: ``cause`` of ``gunicorn_worker_exits_total`` and ``gunicorn_requests_lost_total``."""

    MAX_REQUESTS = Member("max_requests")
    RELOAD = Member("reload")
    SCALE_IN = Member("scale_in")
    SHUTDOWN = Member("shutdown")
    TIMEOUT = Member("timeout")
    GRACEFUL_TIMEOUT = Member("graceful_timeout")
    OOM = Member("oom")
    SEGFAULT = Member("segfault")
    KILLED = Member("killed")
    OTHER_SIGNAL = Member("other_signal")
    BOOT_ERROR = Member("boot_error")
    APP_LOAD_ERROR = Member("app_load_error")
    APP_EXIT = Member("app_exit")
    PARENT_LOST = Member("parent_lost")

    @property
    def unclean(self) -> bool:
        """Whether nobody asked for this end: running requests are lost, and the alert on exits counts it."""
        return self not in _WANTED


_WANTED = frozenset({ExitCause.MAX_REQUESTS, ExitCause.RELOAD, ExitCause.SCALE_IN, ExitCause.SHUTDOWN})


class WorkerCount(LabelValue):
    """Which workers are counted: ``state`` of ``gunicorn_workers``."""

    TARGET = Member("target")
    ALIVE = Member("alive")
    BOOTED = Member("booted")


class MasterSignal(LabelValue):
    """The signals that Gunicorn's master handles by a method ``handle_<signal>`` (gunicorn 25.3 to 27.0)."""

    HUP = Member("hup")
    INT = Member("int")
    QUIT = Member("quit")
    TERM = Member("term")
    TTIN = Member("ttin")
    TTOU = Member("ttou")
    USR1 = Member("usr1")
    USR2 = Member("usr2")
    WINCH = Member("winch")


class ReloadResult(LabelValue):
    """How a reload by SIGHUP, or of the endpoint's web configuration, went."""

    OK = Member("ok")
    FAILED = Member("failed")


class LogLevel(LabelValue):
    """The levels of Gunicorn's error log, as :mod:`logging` names them, in lower case."""

    DEBUG = Member("debug")
    INFO = Member("info")
    WARNING = Member("warning")
    ERROR = Member("error")
    CRITICAL = Member("critical")


class StoreErrorReason(LabelValue):
    """Why a value could not be stored or read."""

    NO_SPACE = Member("no_space")
    CORRUPT = Member("corrupt")
    VANISHED = Member("vanished")
    PERMISSION = Member("permission")


class DisconnectPhase(LabelValue):
    """What was being sent when the client left."""

    REQUEST = Member("request")
    RESPONSE = Member("response")


class UnansweredReason(LabelValue):
    """Why a request was left without a status line, by a worker that went on."""

    STOP_ITERATION = Member("stop_iteration")  #: the application raised StopIteration, which Gunicorn takes for an end
    SYSTEM_EXIT = Member("system_exit")  #: it left by sys.exit, in a class that answers nothing then
    OS_ERROR = Member("os_error")  #: it raised an OSError, which Gunicorn takes for a client that left
    CLIENT_LEFT = Member("client_left")  #: the client left in the middle of a chunked body
    OTHER = Member("other")


class QueueSource(LabelValue):
    """The source of a queue time: the kernel (TCP_INFO), or a proxy's header."""

    KERNEL = Member("kernel")
    PROXY = Member("proxy")


class CpuMode(LabelValue):
    """Where CPU time was spent."""

    USER = Member("user")
    SYSTEM = Member("system")


class WebsocketResult(LabelValue):
    """What became of a request for a websocket."""

    ACCEPTED = Member("accepted")
    REFUSED = Member("refused")
    FAILED = Member("failed")


class MessageDirection(LabelValue):
    """Who sent a message of a websocket, as the server sees it."""

    RECEIVED = Member("received")
    SENT = Member("sent")
