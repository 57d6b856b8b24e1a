"""Load on a server: ``wrk``, or ``ab`` where there is no wrk."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apps import MIX_METHODS, MIX_STATUSES

_MIX = """\
local methods = {%s}
local paths = {%s}
local ready = {}
init = function()
  for _, method in ipairs(methods) do
    for _, path in ipairs(paths) do ready[#ready + 1] = wrk.format(method, path, wrk.headers) end
  end
end
local turn = 0
request = function()
  turn = turn %% #ready + 1
  return ready[turn]
end
"""
_COUNTED = {"wrk": re.compile(r"(\d+) requests in"), "ab": re.compile(r"Complete requests:\s+(\d+)")}
_SLOWEST = {"wrk": re.compile(r"99%\s+([\d.]+)(us|ms|s)\b"), "ab": re.compile(r"99%\s+(\d+)")}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of load did: requests answered, milliseconds of the 99th percentile."""

    requests: int
    p99: float


@dataclass(frozen=True, slots=True)
class Load:
    """A load of some seconds over some connections; ``mix`` sends 36 pairs of method and status, not one."""

    seconds: int
    connections: int
    keep_alive: bool
    mix: bool
    folder: Path

    def run(self, url: str) -> Turn:
        """Put the load on a server, from the cores that the caller is pinned to."""
        tool = load_tool()
        argv = self._wrk(url) if tool == "wrk" else self._ab(url)
        output = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        counted, slowest = _COUNTED[tool].search(output), _SLOWEST[tool].search(output)
        if counted is None or slowest is None:
            raise SystemExit(f"{tool} said:\n{output}")
        p99 = float(slowest[1]) * (_MILLISECONDS[slowest[2]] if tool == "wrk" else 1.0)
        return Turn(int(counted[1]), p99)

    def _wrk(self, url: str) -> Sequence[str]:
        argv = ["wrk", "-t1", f"-c{self.connections}", f"-d{self.seconds}s", "--latency"]
        if not self.keep_alive:
            argv += ["-H", "Connection: close"]
        if self.mix:
            script = self.folder / "mix.lua"
            methods = ", ".join(f'"{method}"' for method in MIX_METHODS)
            script.write_text(_MIX % (methods, ", ".join(f'"/{status}"' for status in MIX_STATUSES)))
            argv += ["-s", str(script)]
        return [*argv, url]

    def _ab(self, url: str) -> Sequence[str]:
        if self.mix:
            raise SystemExit("ab cannot mix requests: install wrk, or leave out --label-sets many")
        argv = ["ab", "-q", "-r", "-t", str(self.seconds), "-n", "10000000", "-c", str(self.connections)]
        return [*argv, *(["-k"] if self.keep_alive else []), f"{url}/"]


def load_tool() -> str:
    """Return the tool that is installed; ends the benchmark if neither is."""
    for tool in ("wrk", "ab"):
        if shutil.which(tool):
            return tool
    raise SystemExit("Neither wrk nor ab is installed: apt install wrk")
