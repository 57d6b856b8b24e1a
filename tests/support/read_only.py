"""Run a command line where only shared memory can be written to: ``python -m tests.support.read_only ARGUMENTS``.

As in a container with a read-only root file system and no volume. The folder that TEST_SHARED_MEMORY names stands for
the machine's shared memory, so that nothing of others is seen in it.
"""

from __future__ import annotations

import os
import sys

from tests.support.unit_sandbox import API, CLONE_NEWNS, PRIVATE, REC, bind, call, mount, mounted, read_only

#: What would name a place that is no longer writable.
PLACES = ("PROMGUN_RUNTIME_DIR", "XDG_RUNTIME_DIR", "TMPDIR")

if __name__ == "__main__":
    call("unshare", CLONE_NEWNS)
    mount("none", "/", flags=REC | PRIVATE)
    bind(os.environ["TEST_SHARED_MEMORY"], "/dev/shm")  # noqa: S108 - what stands for it
    for path in mounted():
        if not path.startswith(API):
            read_only(path)
    environment = {name: value for name, value in os.environ.items() if name not in PLACES}
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], environment)  # noqa: S606 - the same process goes on
