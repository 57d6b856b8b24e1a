"""The names of links to the application's files in client directories."""

from __future__ import annotations

import re

#: The kinds of value files: prometheus_client 0.26 (values.py) puts the kind before the pid in a file's name.
KINDS = r"(?:counter|histogram|summary|gauge_(?:live)?(?:all|sum|min|max|mostrecent))"
#: Names in a client directory that are ours: files of slots, of masters, and folded files of ended children.
LINK = re.compile(rf"{KINDS}_(?:slot\d+|m\d+|folded)\.db")


def link_name(owner: str, kind: str) -> str:
    """Return the link's name in a client directory; ``owner`` is a slot's number, a master's name or ``folded``."""
    return f"{kind}_slot{owner}.db" if owner.isdigit() else f"{kind}_{owner}.db"
