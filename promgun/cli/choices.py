"""Values that Gunicorn's settings are known to take, for help, completion and messages: data only.

Settings that the installed Gunicorn does not have are not looked up; a test gives each value to its setting's own
validator.
"""

from __future__ import annotations

from collections.abc import Mapping

_FACILITIES = (
    "auth authpriv cron daemon ftp kern lpr mail news security syslog user uucp "
    "local0 local1 local2 local3 local4 local5 local6 local7"
)

#: Setting name to its values, the default first.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "asgi_lifespan": ("auto", "on", "off"),
    "asgi_loop": ("auto", "asyncio", "uvloop"),
    "cert_reqs": ("0", "1", "2"),
    "header_map": ("drop", "refuse", "dangerous"),
    "http2_cleartext": ("off", "prior-knowledge", "upgrade", "both"),
    "http_parser": ("auto", "fast", "python"),
    "http_protocols": ("h1", "h2,h1", "h2"),
    "loglevel": ("info", "debug", "warning", "error", "critical"),
    "protocol": ("http", "uwsgi"),
    "proxy_protocol": ("off", "auto", "v1", "v2"),
    "reload_engine": ("auto", "poll", "inotify"),
    "syslog_facility": tuple(_FACILITIES.split()),
}

#: Placeholders of Gunicorn's (``Setting.meta``) that stand for a path, and what completes it.
PATH_PLACEHOLDERS: Mapping[str, str] = {
    "CONFIG": "file",
    "FILE": "file",
    "FILES": "file",
    "PATH": "file",
    "DIR": "dir",
}
#: The same for settings whose placeholder does not tell.
PATH_SETTINGS: Mapping[str, str] = {"chdir": "dir", "paste": "file", "pythonpath": "dir"}
