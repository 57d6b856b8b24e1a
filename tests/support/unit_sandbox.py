"""Run what a systemd unit starts, confined as the unit says, where systemd is not process 1.

``python -m tests.support.unit_sandbox UNIT KEPT...`` as root: makes the mounts, takes the rights away, loads the
filters of system calls, and becomes the unit's ``ExecStart``. Paths KEPT stay visible below what the unit hides: they
hold the program.
What each setting does: systemd.exec(5), systemd 252.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

RDONLY, NOSUID, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 0x1, 0x2, 0x8, 0x20, 0x1000, 0x4000, 0x40000
CLONE_NEWNS = 0x20000
#: CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}: what RestrictNamespaces= refuses.
NAMESPACES = (0x80, CLONE_NEWNS, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
SET_ID = (0o4000, 0o2000)
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
KILL_PROCESS, ALLOW, ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
EQUAL, MASKED_EQUAL = 4, 7
EPERM, EAFNOSUPPORT = 1, 97
#: Families of addresses that there may be: AF_MAX of Linux 6.
FAMILIES = 46
API = ("/dev", "/proc", "/sys")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
#: What ProtectKernelTunables= makes read-only, as far as each is there.
TUNABLES = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/sys")

LIBC = ctypes.CDLL(None, use_errno=True)


class Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp`` of libseccomp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def may_confine() -> bool:
    """Whether this process may mount and change users: root, with CAP_SYS_ADMIN."""
    (effective,) = re.findall(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    return os.geteuid() == 0 and bool(int(effective, 16) >> 21 & 1)


def call(function: str, *arguments: object) -> None:
    """Call a function of the C library; raises ``OSError``."""
    if getattr(LIBC, function)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{function}{arguments}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Attach a file system, or change how one is attached."""
    call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def bind(source: str, target: str) -> None:
    """Show a path at another one too, with what is mounted below it."""
    mount(source, target, flags=BIND | REC)


def read(unit: Path) -> dict[str, list[str]]:
    """Return what a unit says under each name."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def confine(unit: Mapping[str, list[str]], kept: Iterable[str]) -> None:
    """Do what the unit's settings say; refuses a unit with a setting that is expected here and not there."""
    expected = {
        "NoNewPrivileges": ["yes"],
        "CapabilityBoundingSet": [""],
        "ProtectSystem": ["strict"],
        "ProtectHome": ["read-only"],
        "PrivateTmp": ["yes"],
        "PrivateDevices": ["yes"],
        "ProtectKernelTunables": ["yes"],
        "ProtectControlGroups": ["yes"],
        "ProtectProc": ["invisible"],
        "RestrictNamespaces": ["yes"],
        "RestrictSUIDSGID": ["yes"],
        "SystemCallArchitectures": ["native"],
    }
    assert {name: unit.get(name) for name in expected} == expected
    user = pwd.getpwnam(unit["User"][0])
    runtime = Path("/run", unit["RuntimeDirectory"][0])
    runtime.mkdir(int(unit["RuntimeDirectoryMode"][0], 8))
    os.chown(runtime, user.pw_uid, user.pw_gid)
    # In this order: what is allowed at the end does not include the loading of a filter.
    filters = [restricted(unit["RestrictAddressFamilies"][0].split()), allowed(unit["SystemCallFilter"][0].split())]
    mounts(str(runtime), kept)
    os.umask(int(unit["UMask"][0], 8))
    os.chdir(unit["WorkingDirectory"][0])
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for one in filters:
        seccomp("load", one)


def mounts(runtime: str, kept: Iterable[str]) -> None:
    """ProtectSystem=strict, PrivateTmp, PrivateDevices, ProtectProc and their kin; ``runtime`` stays writable."""
    call("unshare", CLONE_NEWNS)
    mount("none", "/", flags=REC | PRIVATE)
    opened = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in kept}
    for path in ("/tmp", "/var/tmp"):  # noqa: S108 - what PrivateTmp= gives its own of
        mount("tmpfs", path, "tmpfs", data="mode=1777")
    for closed in {top for path in kept if (top := closed_to_others(path))}:
        mount("tmpfs", closed, "tmpfs", data="mode=755")
    for path, descriptor in opened.items():
        os.makedirs(path, exist_ok=True)
        bind(f"/proc/self/fd/{descriptor}", path)
    bind(runtime, runtime)
    for path in mounted():
        if not path.startswith((*API, runtime)) and path not in {"/tmp", "/var/tmp"}:  # noqa: S108 - as above
            read_only(path)
    devices()
    mount("proc", "/proc", "proc", data="hidepid=invisible")
    for path in filter(os.path.exists, TUNABLES):
        bind(path, path)
    for path in mounted():
        if path.startswith(TUNABLES):
            read_only(path)


def closed_to_others(path: str) -> str:
    """Return the first folder above a path that other users may not pass, empty if there is none."""
    above = [str(parent) for parent in reversed(Path(path).parents)]
    return next((one for one in above if os.path.exists(one) and not os.stat(one).st_mode & 0o001), "")


def mounted() -> list[str]:
    """Return where something is mounted, as proc_pid_mountinfo(5) writes it."""
    fields = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), path) for path in fields]


def read_only(path: str) -> None:
    """Take writing away from a mount; one that lies hidden below another is out of reach as it is."""
    with contextlib.suppress(OSError):
        mount("none", path, flags=REMOUNT | BIND | RDONLY)


def devices() -> None:
    """PrivateDevices: what is no hardware, and shared memory and terminals as they were."""
    nodes = {name: os.open(f"/dev/{name}", os.O_PATH) for name in (*DEVICES, "shm", "pts")}
    mount("tmpfs", "/dev", "tmpfs", NOSUID | NOEXEC, "mode=755")
    for name, descriptor in nodes.items():
        target = Path("/dev", name)
        if name in DEVICES:
            target.touch()
        else:
            target.mkdir()
        bind(f"/proc/self/fd/{descriptor}", str(target))
    for name, target_name in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target_name}", f"/dev/{name}")
    mount("none", "/dev", flags=REMOUNT | BIND | RDONLY | NOSUID | NOEXEC)


def seccomp(function: str, *arguments: object) -> int:
    """Call a function of libseccomp, which systemd itself needs."""
    made: int = getattr(SECCOMP, f"seccomp_{function}")(*arguments)
    if made < 0:
        raise OSError(-made, f"seccomp_{function}{arguments}")
    return made


SECCOMP = ctypes.CDLL("libseccomp.so.2")
SECCOMP.seccomp_init.restype = ctypes.c_void_p
SECCOMP.seccomp_load.argtypes = (ctypes.c_void_p,)
SECCOMP.seccomp_rule_add_array.argtypes = (
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(Comparison),
)


def rule(made: int, action: int, name: str, *comparisons: Comparison) -> None:
    """Add a rule for a system call that this machine has."""
    number = SECCOMP.seccomp_syscall_resolve_name(name.encode())
    # Below zero are calls of other machines.
    if number >= 0:
        array = (Comparison * len(comparisons))(*comparisons)
        seccomp("rule_add_array", made, action, number, len(comparisons), array)


def allowed(sets: Iterable[str]) -> int:
    """SystemCallFilter: any other call ends the process by SIGSYS."""
    made: int = SECCOMP.seccomp_init(KILL_PROCESS)
    for name in calls(sets):
        rule(made, ALLOW, name)
    return made


def calls(sets: Iterable[str]) -> set[str]:
    """Return the system calls in some of systemd's sets (``@system-service``)."""
    found = set()
    for name in sets:
        printed = subprocess.run(
            ["systemd-analyze", "syscall-filter", name], stdout=subprocess.PIPE, text=True, check=True
        )
        lines = [line.strip() for line in printed.stdout.splitlines()[1:]]
        words = {line for line in lines if line and not line.startswith("#")}
        found |= {word for word in words if not word.startswith("@")} | calls(word for word in words if word[0] == "@")
    return found


def restricted(families: Iterable[str]) -> int:
    """RestrictAddressFamilies, RestrictNamespaces, RestrictSUIDSGID: calls that fail by their arguments."""
    made: int = SECCOMP.seccomp_init(ALLOW)
    for family in set(range(1, FAMILIES)) - {int(getattr(socket, name)) for name in families}:
        rule(made, ERRNO | EAFNOSUPPORT, "socket", Comparison(0, EQUAL, family, 0))
    for flag in NAMESPACES:
        for name in ("clone", "unshare"):
            rule(made, ERRNO | EPERM, name, Comparison(0, MASKED_EQUAL, flag, flag))
    for bit in SET_ID:
        for name, argument in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2)):
            rule(made, ERRNO | EPERM, name, Comparison(argument, MASKED_EQUAL, bit, bit))
    return made


def main() -> None:
    """Become what the unit starts, with the environment that systemd gives, and what the test adds under ``UNIT_``."""
    unit = read(Path(sys.argv[1]))
    pairs = (shlex.split(value)[0].partition("=") for value in unit["Environment"])
    environment = {name: value for name, _, value in pairs} | {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        "LANG": "C.UTF-8",
        "USER": unit["User"][0],
        "HOME": pwd.getpwnam(unit["User"][0]).pw_dir,
        "RUNTIME_DIRECTORY": f"/run/{unit['RuntimeDirectory'][0]}",
        **{name.removeprefix("UNIT_"): value for name, value in os.environ.items() if name.startswith("UNIT_")},
    }
    words = shlex.split(unit["ExecStart"][0])
    confine(unit, sys.argv[2:])
    os.execve(words[0], words, environment)  # noqa: S606 - as systemd does


if __name__ == "__main__":
    main()
