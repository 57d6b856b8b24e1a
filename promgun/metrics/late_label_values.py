"""Closed sets of label values that no server needs before its first fork: those of pages and of the
metrics endpoint. They stand apart because a start waits for ``label_values``, and enums take long to make.
"""

from __future__ import annotations

from promgun.metrics.label_values import LabelValue


class WorkerState(LabelValue):
    """What a living worker does: ``state`` of ``gunicorn_worker_state``."""

    BOOTING = "booting"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    HUNG = "hung"


class EndpointRefusal(LabelValue):
    """Why the metrics endpoint refused a request, or a connection."""

    HOST = "host"  #: a foreign name in Host, on a loopback address
    CROSS_SITE = "cross_site"  #: a page of another site
    RATE_LIMIT = "rate_limit"  #: more requests than rate_limit allows
    CREDENTIALS = "credentials"  #: no valid password or token
    PASSWORDS_WAITING = "passwords_waiting"  #: too many passwords wait to be checked
    CLIENT_CERTIFICATE = "client_certificate"  #: a certificate that names nobody who is allowed
    TLS_HANDSHAKE = "tls_handshake"  #: a handshake that failed
    FILTERS = "filters"  #: no place for one more set of name[]
    DESCRIPTORS = "descriptors"  #: no file descriptor left
    WEB_CONFIG = "web_config"  #: no web configuration that can be used


class SwitchKind(LabelValue):
    """Kinds of context switches (getrusage(2): ``ru_nvcsw``, ``ru_nivcsw``)."""

    VOLUNTARY = "voluntary"
    INVOLUNTARY = "involuntary"


class Generation(LabelValue):
    """Generations of CPython's garbage collector."""

    YOUNGEST = "0"
    MIDDLE = "1"
    OLDEST = "2"
