"""Socket activation, with descriptors of a process of our own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, socket, sys
from promgun.master.socket_activation import take_metrics_sockets
names = sys.argv[1].split(":")
kept = []
for place, name in enumerate(names, 3):
    sock = socket.create_server(("127.0.0.1", 0))
    os.dup2(sock.fileno(), 100 + place)
    kept.append((100 + place, sock.getsockname()[1]))
    sock.close()
for place, (fd, _) in enumerate(kept, 3):
    os.dup2(fd, place)
    os.close(fd)
environment = {"LISTEN_PID": sys.argv[2] or str(os.getpid()), "LISTEN_FDS": str(len(names))}
environment["LISTEN_FDNAMES"] = sys.argv[1]
ours = take_metrics_sockets(environment, os.getpid()).values()
left = int(environment.get("LISTEN_FDS", "0"))
ports = [socket.socket(fileno=fd).getsockname()[1] for fd in range(3, 3 + left)]
expected = [port for (_, port), name in zip(kept, names) if name != "metrics"]
print(json.dumps({
    "ours": [sock.getsockname()[1] for sock in ours] == [p for (_, p), n in zip(kept, names) if n == "metrics"],
    "count": len(ours), "others": ports == expected, "inheritable": [sock.get_inheritable() for sock in ours],
    "names": environment.get("LISTEN_FDNAMES"), "fds": environment.get("LISTEN_FDS")}), flush=True)
os._exit(0)
"""


def activate(names: str, pid: str = "") -> dict[str, object]:
    """Run the function in a process to which sockets of these names were passed."""
    command = [sys.executable, "-c", SCRIPT, names, pid]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert finished.returncode == 0 and finished.stdout, finished.stderr  # noqa: PT018 - one fact
    answer: dict[str, object] = json.loads(finished.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("names", ["metrics:http", "http:metrics", "http:metrics:admin", "http:admin:metrics"])
def test_ours_are_taken_and_the_others_moved_together(names: str) -> None:
    answer = activate(names)
    others = [name for name in names.split(":") if name != "metrics"]
    assert answer == {
        "ours": True,
        "count": 1,
        "others": True,
        "inheritable": [False],
        "names": ":".join(others),
        "fds": str(len(others)),
    }


def test_only_ours() -> None:
    answer = activate("metrics:metrics")
    assert (answer["count"], answer["fds"], answer["names"]) == (2, None, None)


def test_none_of_ours_and_not_for_us() -> None:
    assert (answer := activate("http"))["count"] == 0 and answer["fds"] == "1"  # noqa: PT018 - one fact
    assert activate("metrics", pid="1")["count"] == 0
