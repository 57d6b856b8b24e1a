"""Why a worker ended: from its wait status, the master's own signals, and what the worker wrote before it ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

from promgun.errors import ExitCode
from promgun.metrics.label_values import ExitCause
from promgun.store.board import ExitHint

_HINTED = {
    ExitHint.ABORTED: ExitCause.OTHER_SIGNAL,
    ExitHint.MAX_REQUESTS: ExitCause.MAX_REQUESTS,
    ExitHint.PARENT_LOST: ExitCause.PARENT_LOST,
    ExitHint.CODE_CHANGED: ExitCause.RELOAD,
    ExitHint.SIGNALLED: ExitCause.OTHER_SIGNAL,
}
#: Signals that the kernel sends for an invalid memory access.
_FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS})
#: Seconds that a process may take to end after the OOM killer chose it: it gives back its memory first.
_LATEST_DEATH = 60.0
#: Seconds between two looks for kills that no worker's end follows.
_LOOK_EVERY = 5.0


class End(NamedTuple):
    """All that is known of the end of a worker.

    ``intent`` is why the master wanted it gone (``None``: it did not), ``killed_by_us`` whether it sent SIGKILL,
    ``overdue`` whether the graceful timeout was over by then, ``aborted`` Gunicorn's mark of a worker that timed out,
    ``oom`` whether the kernel's count of OOM kills rose, ``only_websockets`` whether websockets were open in it and no
    request was running.
    """

    status: int
    booted: bool
    intent: ExitCause | None = None
    killed_by_us: bool = False
    overdue: bool = False
    aborted: bool = False
    hint: ExitHint = ExitHint.NONE
    oom: bool = False
    only_websockets: bool = False


def classify(end: End) -> ExitCause:
    """Return the cause of an end, one of the values of the metric's label."""
    # A timed-out worker that could still run Python ends with status 0 (gunicorn 23 to 27), so Gunicorn's mark decides.
    if end.aborted:
        return ExitCause.TIMEOUT
    if os.WIFSIGNALED(end.status):
        return _by_signal(end, os.WTERMSIG(end.status))
    code = os.waitstatus_to_exitcode(end.status)
    if not end.booted and code == ExitCode.APP_LOAD:
        return ExitCause.APP_LOAD_ERROR
    if not end.booted and code != 0 and not end.intent:
        return ExitCause.BOOT_ERROR
    # A worker of green threads cuts off its requests itself, at about the time when the master would have killed it.
    if end.intent == ExitCause.SHUTDOWN and end.overdue and not end.only_websockets:
        return ExitCause.GRACEFUL_TIMEOUT
    # Gunicorn's handler of SIGABRT exits with 1; in this case the signal did not come from the master.
    hinted = (
        _HINTED.get(end.hint, ExitCause.APP_EXIT) if code == 0 or end.hint == ExitHint.ABORTED else ExitCause.APP_EXIT
    )
    return end.intent or hinted


def _by_signal(end: End, number: int) -> ExitCause:
    # A plain number: signal.Signals has no member for most real-time signals.
    if number == signal.SIGKILL:
        if end.killed_by_us:
            # Websockets have no end of their own to wait for: a longer timeout would not have let them end.
            at_timeout = end.intent if end.only_websockets else ExitCause.GRACEFUL_TIMEOUT
            return at_timeout if end.intent and at_timeout else ExitCause.KILLED
        return ExitCause.OOM if end.oom else ExitCause.KILLED
    if number in _FAULTS:
        return ExitCause.SEGFAULT
    # A signal to the whole group reaches a worker twice, and the second may end it (gunicorn issue 3050).
    if end.intent and number in {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}:
        return end.intent
    return ExitCause.OTHER_SIGNAL


class OomWatch:
    """Tells OOM kills from others by the control group's count of them.

    Reads ``oom_kill`` of cgroup v2's ``memory.events`` or v1's ``memory.oom_control``; without either, nothing is
    ever called OOM.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = self._read()
        self._open_since: float | None = None
        self._look_at = 0.0

    def _read(self) -> int:
        if self._path is None:
            return 0
        try:
            lines = self._path.read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def consume(self) -> bool:
        """Consume one OOM kill not yet attributed to a worker; return whether there was one."""
        if self._read() <= self._seen:
            return False
        self._seen += 1
        self._open_since = None
        return True

    def forget_old(self, now: float) -> None:
        """Forget OOM kills that no worker's end has followed: they hit another process of the group.

        To be called every second or so; ``now`` is on any clock of seconds. The file is read every few seconds.
        """
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY
        count = self._read()
        if count <= self._seen:
            self._open_since = None
        elif self._open_since is None:
            self._open_since = now
        elif now - self._open_since > _LATEST_DEATH:
            self._seen = count
            self._open_since = None


def control_group_events(named: str | None) -> Path | None:
    """Return the file that counts OOM kills: in the folder ``named``, or else in this process's control group."""
    folders = [Path(named)] if named else _own_control_groups()
    for folder in folders:
        for name in ("memory.events", "memory.oom_control"):
            # Path.is_file raises PermissionError (Python 3.10 to 3.13).
            if os.path.isfile(folder / name):
                return folder / name
    return None


def _own_control_groups() -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        relative = path.lstrip("/")
        if not controllers:
            folders += [Path("/sys/fs/cgroup") / relative, Path("/sys/fs/cgroup")]
        elif "memory" in controllers.split(","):
            folders += [Path("/sys/fs/cgroup/memory") / relative, Path("/sys/fs/cgroup/memory")]
    return folders
