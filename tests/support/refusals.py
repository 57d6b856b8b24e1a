"""A command that refuses: it ends by itself, with the code of its kind, one clear line, and nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.forked import run_each
from tests.support.harness import PROMGUN, Sandbox

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

CONFIGURATION, USAGE, WORKER_BOOT, APP_LOAD, NO_INSTANCE, STORE, METRICS_ADDRESS = range(1, 8)
DEMO = "promgun.demo:app"
FREE = ("--bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0")


def fail(
    sandbox: Sandbox, *args: str, code: int, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``promgun run``, which must end by itself with this code and leave nothing behind."""
    sandbox.records_stores = True
    ran = sandbox.run(*PROMGUN, *args, env=env)
    assert ran.returncode == code, f"{ran.returncode}: {ran.stderr}"
    left = sandbox.left_behind()
    assert not left, f"left behind: {left}"
    return ran


def fail_each(sandbox: Sandbox, *commands: Sequence[str], code: int) -> list[subprocess.CompletedProcess[str]]:
    """Run ``promgun run`` with each of these arguments, in forks of one interpreter, as :func:`fail` runs one."""
    sandbox.records_stores = True
    each = run_each(sandbox, [["run", *arguments] for arguments in commands])
    for ran in each:
        assert ran.returncode == code, f"{ran.args}: {ran.returncode}: {ran.stderr}"
    left = sandbox.left_behind()
    assert not left, f"left behind: {left}"
    return each


def assert_one_line(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert that the error is told in one line with these words in it, and nothing else is said."""
    assert not ran.stdout
    (line,) = ran.stderr.splitlines()
    assert line.startswith("promgun: error: ")
    for word in words:
        assert word in line, (word, line)
