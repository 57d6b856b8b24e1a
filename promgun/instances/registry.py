"""The list of running instances: one small file a master in a private runtime directory.

An entry is believed only while its process lives, and it is the same process: pid and start time are compared, so a
reused pid never passes for a server. Entries of the dead are removed by whoever reads the list.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from promgun.errors import ConfigurationError, InstanceError
from promgun.system.atomic_file import write_atomically
from promgun.system.folders import temporary_folder

VARIABLE = "PROMGUN_RUNTIME_DIR"
NAME_LIMIT = 64
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One running master: ``started`` in Unix seconds, ``store`` its store directory."""

    name: str
    pid: int
    started: float
    application: str
    worker_type: str
    addresses: tuple[str, ...]
    metrics_addresses: tuple[str, ...]
    store: Path

    def uptime(self, now: float | None = None) -> float:
        """Seconds since the start; ``now`` is the clock to compare with."""
        return max(0.0, (time.time() if now is None else now) - self.started)


def register(run: Run) -> Path:
    """Write ``run`` into the list, or write it anew when its addresses change; gives the entry's path.

    The name is cleaned, and numbered (``name-2``) while another instance bears it; masters that share a store, as
    across SIGUSR2, are one instance and share the name. Raises ``ConfigurationError`` if the list has no place.
    """
    directory = _writable_directory()
    path = directory / f"{run.pid}.json"
    with _locked(directory):
        run = replace(run, name=_free_name(run, list(_entries(directory))))
        entry = asdict(run) | {"store": str(run.store), "process": process_identity(run.pid)}
        write_atomically(path, json.dumps(entry, indent=1), durable=False)
    return path


def unregister(path: Path) -> None:
    """Remove an entry that this very process registered; a fork that unwinds the same stack removes nothing."""
    if path.stem == str(os.getpid()):
        path.unlink(missing_ok=True)


def live_runs() -> tuple[Run, ...]:
    """Every running instance that this user may see, oldest first; entries of dead processes are removed."""
    runs = [run for directory in _readable_directories() for run in _entries(directory)]
    return tuple(sorted(runs, key=lambda run: (run.started, run.pid)))


def instances() -> tuple[Run, ...]:
    """As :func:`live_runs`, but of masters that share one store only the newest."""
    newest = {run.store: run for run in live_runs()}
    return tuple(newest.values())


def find(name_or_pid: str | None) -> Run:
    """The instance of that name or pid, or the only one there is.

    Raises ``InstanceError`` when there is none, or when several run and none was named.
    """
    runs = instances()
    if name_or_pid is None:
        return _only(runs)
    named = [run for run in runs if run.name == name_or_pid]
    named = named or [run for run in live_runs() if str(run.pid) == name_or_pid]
    if not named:
        known = ", ".join(run.name for run in runs) or "none"
        raise InstanceError(f"no running instance is called {name_or_pid!r}", f"Running: {known} (see promgun ps)")
    return _only(named)


def _only(runs: Sequence[Run]) -> Run:
    if not runs:
        raise InstanceError(
            "no running promgun instance",
            "Start one with: promgun run APP, or name a source with --dir or --url",
        )
    if len(runs) > 1:
        listed = "; ".join(f"{run.name} (pid {run.pid}, {run.application})" for run in runs)
        raise InstanceError(
            f"{len(runs)} instances are running: {listed}", "Choose one with --instance NAME (or its pid)"
        )
    return runs[0]


# -- where the list lies ---------------------------------------------------------------------------------------------


def _candidates(environ: Mapping[str, str]) -> list[Path]:
    """Places in order of preference; a service and a login shell of one user may see different ones: read them all."""
    if environ.get(VARIABLE):
        return [Path(os.path.realpath(environ[VARIABLE]))]
    places = []
    session = Path(environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    if session.is_dir() and session.stat().st_uid == os.geteuid():
        places.append(session / "promgun")
    if os.geteuid() == 0:
        places.append(Path("/run/promgun"))
    places.append(temporary_folder() / f"promgun-{os.geteuid()}")
    return places


def _writable_directory() -> Path:
    reasons: list[str] = []
    for place in _candidates(os.environ):
        with _told(place, reasons):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(place)
            if not os.access(place, os.W_OK):
                raise PermissionError(None, "it cannot be written to")
            return place
    raise ConfigurationError(
        f"no private directory for the list of running instances ({'; '.join(reasons)})",
        f"Set {VARIABLE} to a directory of your own that only you may write to",
    )


@contextmanager
def _told(place: Path, reasons: list[str]) -> Iterator[None]:
    """Note why ``place`` will not do, and go on."""
    try:
        yield
    except OSError as error:
        reasons.append(f"{place}: {error.strerror or error}")


def _readable_directories() -> Iterator[Path]:
    for place in _candidates(os.environ):
        try:
            # The list of a service belongs to the service's user; root, who names it, may look.
            _check_private(place, anybodys=os.geteuid() == 0 and bool(os.environ.get(VARIABLE)))
        except FileNotFoundError:
            continue
        except OSError as error:
            if os.environ.get(VARIABLE):
                raise ConfigurationError(
                    f"{VARIABLE}={place} cannot be trusted: {error.strerror or error}",
                    "Name a directory of your own that only you may write to",
                ) from error
            continue
        yield place


def _check_private(place: Path, *, anybodys: bool = False) -> None:
    """Raise ``OSError`` unless ``place`` is a directory, no link, of this user, that only its owner may write to."""
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(None, "not a directory")
    if status.st_uid != os.geteuid() and not anybodys:
        raise PermissionError(None, f"it belongs to uid {status.st_uid}")
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise PermissionError(None, "others may write to it")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# -- entries ---------------------------------------------------------------------------------------------------------


def _entries(directory: Path) -> Iterator[Run]:
    for path in directory.glob("*.json"):
        run, process = _read(path)
        if run is None or process is None:
            continue
        if process == process_identity(run.pid):
            yield run
        elif _same_machine(process):
            path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[Run | None, str | None]:
    """One entry and the identity of its process; nothing for a file that is gone or of another make."""
    try:
        entry = json.loads(path.read_text())
        process = str(entry.pop("process"))
        for field in ("addresses", "metrics_addresses"):
            entry[field] = tuple(entry[field])
        return Run(**entry | {"store": Path(entry["store"])}), process
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, None


def _free_name(run: Run, others: list[Run]) -> str:
    wanted = re.sub(r"[^A-Za-z0-9._-]+", "-", run.name).strip("-.")[:NAME_LIMIT] or "promgun"
    siblings = [other.name for other in others if other.pid == run.pid or other.store == run.store]
    for name in siblings:
        if re.fullmatch(re.escape(wanted) + r"(-\d+)?", name):
            return name
    taken = {other.name for other in others}
    number = 2
    name = wanted
    while name in taken:
        name = f"{wanted}-{number}"
        number += 1
    return name


# -- processes -------------------------------------------------------------------------------------------------------


def process_identity(pid: int) -> str:
    """A text that no other process, now or later, shares; empty for a process that is dead or a zombie.

    On Linux: boot id, pid namespace, and start in ticks since boot, which no step of the clock can move (psutil's
    ``create_time`` moves with it). Elsewhere the start time as psutil gives it.
    """
    if not Path("/proc/self/stat").exists():
        return _identity_elsewhere(pid)
    try:
        # proc(5): the command stands in parentheses and may hold anything; state is field 3, starttime field 22.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else f"{_machine()} {fields[19]}"


def _identity_elsewhere(pid: int) -> str:
    import psutil  # noqa: PLC0415 - needed off Linux only

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"local {process.create_time()}"
    except psutil.Error:
        return ""


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "local"


def _same_machine(process: str) -> bool:
    """Whether an entry's pid means something here: it is left alone if a container with its own pids wrote it."""
    written = process.rpartition(" ")[0]
    here = _machine() if Path("/proc/self/stat").exists() else "local"
    return written == here or written.partition("/")[0] != here.partition("/")[0]
