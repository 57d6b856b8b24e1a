"""``promgun export systemd``: a unit for a server that systemd starts, watches and reloads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from promgun.errors import UsageError
from promgun.export.command import ServerOptions, arguments
from promgun.export.options import PART, option

_UNIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_USER = re.compile(r"[a-z_][a-z0-9_-]*\$?|\d+", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SAFE_WORD = re.compile(r"[\w@%+=:,./$()\[\]-]+")
_PRIVILEGED = 1024

UNIT = """\
# {name}.service, made by: promgun export systemd
# Put it into /etc/systemd/system, then: systemctl daemon-reload && systemctl enable --now {name}
# See it with: PROMGUN_RUNTIME_DIR=/run/{name} promgun ps   (as {user} or root)
[Unit]
Description={description}
After=network-online.target
Wants=network-online.target

[Service]
# Gunicorn tells systemd when it listens.
Type=notify
NotifyAccess=main
ExecStart={command}
# "systemctl reload" is SIGHUP: the configuration is read again, new workers replace the old ones.
ExecReload=/bin/kill -s HUP $MAINPID
# A new Python, Gunicorn or promgun takes over without a gap by SIGUSR2: a new master starts beside the old one, and
# becomes the one that systemd watches when the old one is told to end:
#   systemctl kill --kill-whom=main -s USR2 {name}     then, once the new one serves:
#   systemctl kill --kill-whom=main -s TERM {name}
KillMode=mixed
# Above --graceful-timeout (30 s), so that requests may end.
TimeoutStopSec=45
Restart=on-failure
RestartSec=2
# A worker that the kernel kills for memory is counted and replaced; systemd's default would stop the whole server.
OOMPolicy=continue

User={user}
Group={group}
WorkingDirectory={directory}
RuntimeDirectory={name}
RuntimeDirectoryMode=0700
Environment=PROMGUN_RUNTIME_DIR=/run/{name}
{environment}
# Takes away what web applications do not need. If yours needs something, the journal says what was refused: remove
# that line.
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
# AF_NETLINK is how the accept queues are read.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0027
# Folders that the application writes to: ReadWritePaths=

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemdOptions:
    """What the unit is made with; ``program`` is the absolute path of ``promgun``, ``environment`` NAME=VALUE pairs."""

    server: ServerOptions = field(default_factory=ServerOptions, metadata=PART)
    name: str = option("web", "The unit's name, without .service.")
    description: str = option("", "One line about the server.")
    user: str = option("www-data", "The user that it runs as.")
    group: str = option("", "The group that it runs as, if its name is not the user's.")
    directory: str = option("/srv/web", "The working directory, where the application is.", "DIR")
    program: str = option("/srv/web/venv/bin/promgun", "The absolute path of promgun.", "FILE")
    environment: tuple[str, ...] = option((), "An environment variable.", "NAME=VALUE", "--env")


def systemd(options: SystemdOptions) -> str:
    """Return the unit; raises ``UsageError`` for what systemd would refuse."""
    group = options.group or options.user
    for name in (options.user, group):
        if not _USER.fullmatch(name):
            raise UsageError(f"{name!r} is not a user or group", "Give the name of one that exists, e.g. www-data")
    if not _UNIT_NAME.fullmatch(options.name):
        raise UsageError(f"{options.name!r} is not a unit's name", "Use letters, digits, '-', '_' and '.'")
    low = any(0 < port < _PRIVILEGED for port in options.server.ports())
    environment = [f"Environment={_word(pair)}\n" for pair in map(_variable, options.environment)]
    words = (_absolute(options.program), "run", *arguments(options.server))
    return UNIT.format(
        name=options.name,
        description=_line(options.description or f"{options.server.app} under Gunicorn, measured by promgun"),
        command=" ".join(_word(word).replace("$", "$$") for word in words),
        user=options.user,
        group=group,
        directory=_line(_absolute(options.directory)),
        environment="".join(environment),
        capabilities="CAP_NET_BIND_SERVICE" if low else "",
    )


def _variable(pair: str) -> str:
    if not _VARIABLE.fullmatch(pair.partition("=")[0]) or "=" not in pair:
        raise UsageError(f"{pair!r} is not an environment variable", "Write it as NAME=VALUE")
    return pair


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"{path!r} is not an absolute path", "systemd needs one, e.g. /srv/web")
    return path


def _line(text: str) -> str:
    """Return text for one line of a unit: specifiers (systemd.unit(5)) are escaped."""
    if not text.isprintable():
        raise UsageError(f"{text!r} has characters that do not fit into a unit", "Leave them out")
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """Return one word, quoted where systemd.syntax(7) needs it."""
    word = _line(text)
    if _SAFE_WORD.fullmatch(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
