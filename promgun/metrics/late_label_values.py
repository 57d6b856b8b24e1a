"""Closed sets of label values that no server needs before its first fork: those of pages and of the
metrics endpoint. They stand apart because a start waits for ``label_values``.
"""

from __future__ import annotations

from promgun.metrics.label_values import LabelValue
from promgun.system.closed_set import Member


class WorkerState(LabelValue):
    """What a living worker does: ``state`` of ``gunicorn_worker_state``."""

    BOOTING = Member("booting")
    IDLE = Member("idle")
    BUSY = Member("busy")
    DRAINING = Member("draining")
    HUNG = Member("hung")


class EndpointRefusal(LabelValue):
    """Why the metrics endpoint refused a request, or a connection."""

    HOST = Member("host")  #: a foreign name in Host, on a loopback address
    CROSS_SITE = Member("cross_site")  #: a page of another site
    RATE_LIMIT = Member("rate_limit")  #: more requests than rate_limit allows
    CREDENTIALS = Member("credentials")  #: no valid password or token
    PASSWORDS_WAITING = Member("passwords_waiting")  #: too many passwords wait to be checked
    CLIENT_CERTIFICATE = Member("client_certificate")  #: a certificate that names nobody who is allowed
    TLS_HANDSHAKE = Member("tls_handshake")  #: a handshake that failed
    FILTERS = Member("filters")  #: no place for one more set of name[]
    DESCRIPTORS = Member("descriptors")  #: no file descriptor left
    WEB_CONFIG = Member("web_config")  #: no web configuration that can be used


class SwitchKind(LabelValue):
    """Kinds of context switches (getrusage(2): ``ru_nvcsw``, ``ru_nivcsw``)."""

    VOLUNTARY = Member("voluntary")
    INVOLUNTARY = Member("involuntary")


class Generation(LabelValue):
    """Generations of CPython's garbage collector."""

    YOUNGEST = Member("0")
    MIDDLE = Member("1")
    OLDEST = Member("2")
