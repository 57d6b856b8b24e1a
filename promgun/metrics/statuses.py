"""What the label ``status`` reads: a code of RFC 9110 or of IANA's registry as it is, another by its class."""

from __future__ import annotations

from http import HTTPStatus

#: Codes that stand as they are: RFC 9110, IANA's registry (as Python 3.10 has it) and 418.
KNOWN_STATUSES = {int(status): f"{int(status):03d}" for status in HTTPStatus}
#: What is no status at all.
OTHER_STATUS = "_OTHER"
_CLASSES = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}


def status_label(code: object) -> str:
    """Return the label of a status code, whatever an application gave as one."""
    if not isinstance(code, int):
        return OTHER_STATUS
    return KNOWN_STATUSES.get(code) or _CLASSES.get(code // 100, OTHER_STATUS)


def status_class(label: str) -> str:
    """Return the class of a status label: ``404`` and ``4xx`` are ``4xx``."""
    return _CLASSES.get(int(label[0]), OTHER_STATUS) if label[:1].isdecimal() else OTHER_STATUS
