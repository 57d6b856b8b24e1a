"""Many command lines of promgun, run one after another in forks of one interpreter that has imported it already.

Each is a process of its own with its own output and its own exit code; what is saved is the start of the interpreter
and the imports, which are most of what a command costs that refuses.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from tests.support.sandbox import DEADLINE, Sandbox

PROGRAM = """
import json, os, runpy, sys
import promgun.cli.entry, promgun.cli.main, promgun.cli.run, promgun.master.application, promgun.master.launch

codes = []
for number, arguments in enumerate(json.load(sys.stdin)):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        break
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
else:
    print(json.dumps(codes))
    sys.exit()
for descriptor, name in ((0, os.devnull), (1, f"out-{number}"), (2, f"err-{number}")):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), descriptor)
os.setsid()
sys.argv = ["promgun", *arguments]
runpy.run_module("promgun", run_name="__main__", alter_sys=True)
"""


def run_each(sandbox: Sandbox, commands: Sequence[Sequence[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Run ``promgun`` with each of these arguments to its end; return exit codes and outputs in that order."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=sandbox.directory,
        env=sandbox.environment(),
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=len(commands) * DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ran = []
    for number, code in enumerate(json.loads(done.stdout)):
        out, err = (sandbox.directory / f"{name}-{number}" for name in ("out", "err"))
        ran.append(subprocess.CompletedProcess(["promgun", *commands[number]], code, out.read_text(), err.read_text()))
        out.unlink()
        err.unlink()
    assert len(ran) == len(commands)
    return ran
