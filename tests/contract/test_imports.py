"""Who may import whom: what a TAB pays for, and what stays behind its seam."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.system.procfs import HAS_SMAPS_ROLLUP

pytestmark = pytest.mark.unmeasured("it looks at which modules an interpreter has loaded")

PACKAGE = Path(__file__).parents[2] / "promgun"
HEAVY = ("gunicorn", "prometheus_client", "asyncio", "psutil", "rich", "h11", "ssl", "gevent", "eventlet")

#: Third-party module to the only places (files or folders of the package) that may name it.
SEAMS = {
    "click": ("cli/",),
    "rich": ("terminal/", "exposition/"),
    "eventlet": ("workers/",),
    "gunicorn": ("config/", "master/", "workers/", "cli/gunicorn_options.py", "cli/types.py"),
}


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after ``code``."""
    program = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import promgun.cli.entry, promgun.cli.main",
        "import promgun.config.worker_types",
        "import promgun.config.run_settings, promgun.errors, promgun.instances.registry",
        # Naming a command loads its module: each TAB after "promgun" does so with all of them.
        "import promgun.cli.run, promgun.cli.ps, promgun.cli.metrics, promgun.cli.top, promgun.cli.export",
        "import promgun.cli.completion",
        "from promgun.cli.shells import register; register()",
    ],
)
def test_a_tab_pays_for_nothing_heavy(code: str) -> None:
    assert modules_after(code).isdisjoint(HEAVY)


def test_the_master_holds_nothing_of_the_endpoint_but_what_starts_it() -> None:
    program = (
        "import promgun.master.launch, promgun.master.application, promgun.master.late_start, sys\n"
        "print('\\n'.join(name for name in sys.modules if name.startswith('promgun.endpoint.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"promgun.endpoint.process", "promgun.endpoint.supervisor"}


#: What a server loads once its first worker boots, or never: each of them would delay the first answer.
LATE = {
    *("asyncio", "dataclasses", "difflib", "prometheus_client", "subprocess"),
    *("gunicorn.workers.base_async", "gunicorn.workers.gthread"),
    *("promgun.config.collectors", "promgun.config.gateway", "promgun.config.reexec", "promgun.config.web_options"),
    *("promgun.config.series_options", "promgun.config.unique_memory", "promgun.master.first_start"),
    *("promgun.master.reaper", "promgun.master.socket_activation", "promgun.master.succession"),
    *("promgun.workers._gevent_exits", "promgun.workers._heartbeat_marks", "promgun.workers._hub_timers"),
    *("promgun.workers._loop_lag", "promgun.workers._task_dump"),
    *(
        "promgun.metrics.catalog",
        "promgun.metrics.late_label_values",
        "promgun.routes.patterns",
        "promgun.routes.reporting",
    ),
    "promgun.system.remove_tree",
    *("promgun.store.app_metrics", "promgun.store.definition_rows", "promgun.store.definitions"),
    *("promgun.store.format", "promgun.store.placed_values", "promgun.store.unshown", "promgun.store.values"),
    *("promgun.store.files", "promgun.store.healing", "promgun.store.row_scan", "promgun.workers._application_kind"),
    *("promgun.endpoint.process", "promgun.instances", "promgun.store.upkeep", "promgun.terminal.output"),
}


def _printed_at_the_start(tmp_path: Path, *lines: str) -> tuple[str, str]:
    """Return what a server prints on standard output and error that runs these lines, of an interpreter, first."""
    program = (
        *lines,
        "sys.argv = ['promgun', 'run', '--bind', '127.0.0.1:0', '--metrics-bind', '127.0.0.1:0', 'promgun.demo:app']",
        "from promgun.cli.entry import start",
        "start()",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PROMGUN_RUNTIME_DIR": str(tmp_path)},
    )
    return done.stdout, done.stderr


def test_a_first_answer_waits_for_little(tmp_path: Path) -> None:
    printed, log = _printed_at_the_start(
        tmp_path, "import os, sys", "os.fork = lambda: print('\\n'.join(sys.modules)) or sys.exit()"
    )
    loaded = set(printed.split())
    assert "promgun.workers.sync" in loaded, log
    # On CPython 3.14 something of the library that Gunicorn imports needs dataclasses.
    plain = "import sys, gunicorn.app.wsgiapp, gunicorn.workers.sync; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", plain], capture_output=True, text=True, check=True)
    assert loaded & LATE - set(done.stdout.split()) == set()


def test_a_master_does_nothing_beside_the_boot_of_its_first_worker(tmp_path: Path) -> None:
    """Gunicorn sleeps behind each fork: where cores are busy, the worker would wait for what the master does before."""
    printed, log = _printed_at_the_start(
        tmp_path,
        "import os, sys, time",
        "os.fork = lambda: before.update(sys.modules) or os.getpid()",
        "before = {}",
        "time.sleep = lambda _: print(*(name for name in sys.modules if name not in before)) or sys.exit()",
    )
    assert (printed, "Listening" in log) == ("\n", True)


def test_a_worker_that_changes_its_user_has_loaded_before_what_others_load_late() -> None:
    program = (
        "import sys\nfrom promgun.workers._load_ahead import load_ahead\nload_ahead()\nprint('\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    late = {
        "store": ("app_metrics", "files", "healing", "placed_values", "row_scan", "upkeep", "values"),
        "config": ("unique_memory",),
        "workers": ("_application_kind", "_task_dump"),
    }
    assert {f"promgun.{room}.{name}" for room, names in late.items() for name in names} <= set(done.stdout.split())


@pytest.mark.skipif(not HAS_SMAPS_ROLLUP, reason="psutil is needed where there is no /proc")
def test_the_metrics_process_imports_no_psutil() -> None:
    assert "psutil" not in modules_after("import promgun.endpoint.main, promgun.collect.page")


def test_help_needs_no_gunicorn() -> None:
    code = "from promgun.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert modules_after(code).isdisjoint(HEAVY)


def imported(path: Path) -> Iterator[str]:
    """The top-level names of what a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("library", SEAMS)
def test_library_stays_behind_its_seam(library: str) -> None:
    files = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if library in imported(path)}
    assert {name for name in files if not name.startswith(SEAMS[library])} == set()
    assert files, f"nothing imports {library} any more: drop its seam"


def test_only_the_command_line_imports_the_command_line() -> None:
    outside = [path for path in PACKAGE.rglob("*.py") if "cli" not in path.parts and path.name != "__main__.py"]
    found = [path.name for path in outside if "promgun.cli" in path.read_text()]
    assert found == []
