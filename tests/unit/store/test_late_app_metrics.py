"""The application's metrics are loaded with prometheus_client, and not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_BEGIN = """
import sys
from pathlib import Path
from promgun.store.new_file import Owner
from promgun.store.process import ProcessStore
from promgun.store.run_places import create_private

class Log(list):
    __call__ = list.append

warned = Log()
store = ProcessStore(warned)
store.open(create_private(Owner(), [Path(sys.argv[1])]))
store.app.publish()
store.app.tick()
assert store.app.is_stored() and not store.app.asks_functions()
LATE = {f"promgun.store.{name}" for name in ("app_metrics", "definitions", "format", "placed_values", "values")}
"""


def run(code: str, folder: Path) -> str:
    """Run code in an interpreter of its own that has a published store and no prometheus_client."""
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + code, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_they_are_loaded_with_prometheus_client(tmp_path: Path) -> None:
    code = """
assert not LATE & sys.modules.keys(), LATE & sys.modules.keys()
from prometheus_client import Counter, Info
assert LATE <= sys.modules.keys()
counter = Counter("c", "Help.")
counter.inc(3)
Info("build", "Help.").info({"a": "b"})
print(type(counter._value).__mro__[1].__name__, counter._value.get(), store.app.is_stored())
"""
    assert run(code, tmp_path) == "SlotValue 3.0 False"


def test_without_the_right_to_read_them_the_application_goes_on(tmp_path: Path) -> None:
    code = """
sys.modules["promgun.store.values"] = None
from prometheus_client import Counter, Enum, Gauge
counter = Counter("c", "Help.")
counter.inc(3)
Enum("e", "Help.", states=["a", "b"]).state("b")
Gauge("g", "Help.").set_function(lambda: 1)
store.app.tick()
store.app.detach()
store.app.detach_values()
print(counter._value.get(), store.app.is_stored(), warned)
"""
    assert run(code, tmp_path) == "3.0 True []"
