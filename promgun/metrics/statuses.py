"""The values of the label ``status``: a code of RFC 9110 or of IANA's registry, or the class of any other code."""

from __future__ import annotations

from itertools import chain

#: Codes that are shown as they are: RFC 9110, IANA's registry (as of Python 3.10) and 418. ``http`` has them too, and
#: takes a millisecond of every start.
KNOWN_STATUSES = {
    code: str(code)
    for code in chain(
        range(100, 104),
        (*range(200, 209), 226),
        (*range(300, 306), 307, 308),
        (*range(400, 419), *range(421, 427), 428, 429, 431, 451),
        (*range(500, 509), 510, 511),
    )
}
#: The label of a value that is no status code.
OTHER_STATUS = "_OTHER"
_CLASSES = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}


def status_label(code: object) -> str:
    """Return the label of a status code, which an application may have given in any type."""
    if not isinstance(code, int):
        return OTHER_STATUS
    return KNOWN_STATUSES.get(code) or _CLASSES.get(code // 100, OTHER_STATUS)


def status_class(label: str) -> str:
    """Return the class of a status label: ``404`` and ``4xx`` are ``4xx``."""
    return _CLASSES.get(int(label[0]), OTHER_STATUS) if label[:1].isdecimal() else OTHER_STATUS
