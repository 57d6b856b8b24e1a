"""The commands: what they are called with, what they print, how they end."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from promgun import __version__
from promgun.cli.main import LazyGroup, main
from promgun.config.run_settings import RunSettings
from promgun.errors import AppLoadError, ConfigurationError, ExitCode, PromgunError, StoreError
from promgun.instances.entries import Run
from promgun.instances.registry import register
from promgun.metrics.catalog import CATALOG


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees what else runs here."""
    for name in [name for name in os.environ if name.startswith("PROMGUN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PROMGUN_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


@dataclass(frozen=True)
class Result:
    """How a command line ended."""

    exit_code: int
    stdout: str
    stderr: str


def invoke(*args: str) -> Result:
    """Run a command line in this process, as the entry point does (Click's runner differs between its versions)."""
    with (
        redirect_stdout(io.StringIO()) as stdout,
        redirect_stderr(io.StringIO()) as stderr,
        pytest.raises(SystemExit) as ended,
    ):
        main(list(args))
    code = ended.value.code
    assert isinstance(code, int)
    return Result(code, stdout.getvalue(), stderr.getvalue())


def told(result: Result) -> str:
    """What stood on standard error: one line."""
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.rstrip("\n")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[RunSettings]:
    """What ``promgun run`` hands on, in place of a server."""
    seen: list[RunSettings] = []
    monkeypatch.setitem(sys.modules, "promgun.master.launch", SimpleNamespace(launch=seen.append))
    return seen


def failing_launch(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def launch(_settings: RunSettings) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "promgun.master.launch", SimpleNamespace(launch=launch))


def a_run(tmp_path: Path, name: str = "shop", **changes: Any) -> Run:
    facts: dict[str, Any] = {
        "name": name,
        "pid": os.getpid(),
        "started": time.time() - 130,
        "application": "shop:app",
        "worker_type": "gthread",
        "addresses": ("http://127.0.0.1:8000",),
        "metrics_addresses": ("http://127.0.0.1:9164/metrics",),
        "store": tmp_path / name,
    }
    return Run(**facts | changes)


def commands(group: LazyGroup, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command of the tree, as its words."""
    found = [path]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found += commands(command, (*path, name)) if isinstance(command, LazyGroup) else [(*path, name)]
    return found


assert isinstance(main, LazyGroup)
COMMANDS = commands(main)


def test_the_commands() -> None:
    assert {" ".join(words) for words in COMMANDS} == {
        "",
        "run",
        "ps",
        "metrics",
        "metrics dump",
        "metrics list",
        "metrics serve",
        "metrics top",
        "export",
        "export grafana",
        "export rules",
        "export scrape",
        "export kubernetes",
        "export systemd",
        "completion",
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_an_example(words: tuple[str, ...], flag: str) -> None:
    result = invoke(*words, flag)
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"  promgun {' '.join(words)}".rstrip() in result.stdout.partition("Example")[2]
    assert max(map(len, result.stdout.splitlines())) <= 110


def test_version() -> None:
    result = invoke("--version")
    assert result.stdout.startswith(f"promgun {__version__} (gunicorn ")
    assert result.exit_code == 0


def test_module_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "promgun", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == invoke("--version").stdout


# -- the error boundary ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("metrics",)])
def test_nothing_asked_for_shows_the_help(words: tuple[str, ...]) -> None:
    result = invoke(*words)
    assert result.exit_code == ExitCode.USAGE
    assert result.stdout == ""
    assert "Commands:" in result.stderr


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["rnu"], "there is no command 'rnu'. Did you mean 'promgun run'? See: promgun --help"),
        (
            ["shop:app"],
            "there is no command 'shop:app'. Did you mean 'promgun run shop:app'? See: promgun --help",
        ),
        (
            ["metrics", "dmp"],
            "there is no command 'dmp'. Did you mean 'promgun metrics dump'? See: promgun metrics --help",
        ),
        (["zzz"], "there is no command 'zzz'. See: promgun --help"),
    ],
)
def test_unknown_command(args: list[str], line: str) -> None:
    result = invoke(*args)
    assert result.exit_code == ExitCode.USAGE
    assert told(result) == f"promgun: error: {line}"


@pytest.mark.parametrize(
    "args", [["ps", "--no-such"], ["ps", "extra"], ["completion"], ["completion", "tcsh"], ["metrics", "serve"]]
)
def test_usage_error_is_one_line_with_the_next_step(args: list[str]) -> None:
    result = invoke(*args)
    assert result.exit_code == ExitCode.USAGE
    line = told(result)
    assert line.startswith("promgun: error: ")
    assert "See: promgun " in line


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigurationError("no good", "Do better"), 1), (StoreError("in use"), 6), (PromgunError("odd"), 1)],
)
def test_error_becomes_a_line_and_its_code(monkeypatch: pytest.MonkeyPatch, error: PromgunError, code: int) -> None:
    failing_launch(monkeypatch, error)
    result = invoke("run", "shop:app")
    assert result.exit_code == code
    assert told(result) == f"promgun: error: {error}"


def test_traceback_of_the_users_own_module_comes_whole_and_first(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_launch(monkeypatch, AppLoadError("cannot load it", traceback="Traceback:\n  line 1\nValueError: x\n"))
    result = invoke("run", "shop:app")
    assert result.exit_code == ExitCode.APP_LOAD
    assert result.stderr == "Traceback:\n  line 1\nValueError: x\npromgun: error: cannot load it\n"


def test_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_launch(monkeypatch, KeyboardInterrupt())
    result = invoke("run", "shop:app")
    assert result.exit_code == 130
    assert result.stderr.strip() == "promgun: interrupted"


def test_interrupt_during_the_first_imports_is_as_quiet() -> None:
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from promgun.cli.entry import start\n"
        "start()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (130, "promgun: interrupted")


def test_program_starts_at_its_entry() -> None:
    code = "import sys; sys.argv[1:] = ['ps']; from promgun.cli.entry import start; start()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "no running instances\n")


@pytest.mark.parametrize("code", [0, 3, 4])
def test_exit_of_the_server_passes_through(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    failing_launch(monkeypatch, SystemExit(code))
    assert invoke("run", "shop:app").exit_code == code


def test_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_launch(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        main(["run", "shop:app"])


def test_reader_that_leaves_is_no_error() -> None:
    program = f"{sys.executable} -m promgun metrics list --format json"
    done = subprocess.run(["sh", "-c", f"({program}; echo $? >&2) | :"], capture_output=True, text=True, check=True)
    assert done.stderr in {"0\n", "1\n"}, "no traceback, no 'Exception ignored'"


# -- run -------------------------------------------------------------------------------------------------------------


def test_run_hands_on_what_was_given(launched: list[RunSettings]) -> None:
    assert invoke("run", "-w", "3", "shop:app").exit_code == 0
    assert [(settings.app, settings.overrides) for settings in launched] == [("shop:app", {"workers": 3})]


def test_run_without_an_application_leaves_that_to_the_configuration(launched: list[RunSettings]) -> None:
    assert invoke("run").exit_code == 0
    assert [(settings.app, settings.overrides) for settings in launched] == [(None, {})]


def test_application_may_come_from_the_environment(
    launched: list[RunSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMGUN_APP", "shop:app")
    invoke("run")
    invoke("run", "blog:app")
    assert [settings.app for settings in launched] == ["shop:app", "blog:app"]


def test_bad_value_is_told_before_anything_starts(launched: list[RunSettings]) -> None:
    result = invoke("run", "-w", "many", "shop:app")
    assert result.exit_code == ExitCode.USAGE
    assert (
        told(result)
        == "promgun: error: Invalid value for '-w' / '--workers': 'many' is not a whole number. See: promgun run --help"
    )
    assert launched == []


def test_run_help_is_grouped_ours_first() -> None:
    lines = invoke("run", "--help").stdout.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings[:4] == ["Promgun:", "Config File:", "Server Socket:", "Worker Processes:"]
    assert headings[-1] == "Help:"
    assert any("PROMGUN_" in line for line in lines)


# -- ps --------------------------------------------------------------------------------------------------------------


def test_ps_without_instances() -> None:
    result = invoke("ps")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no running instances\n")


def test_ps_without_instances_is_an_empty_list_in_json() -> None:
    assert json.loads(invoke("ps", "--format", "json").stdout) == []


def test_ps(tmp_path: Path) -> None:
    register(a_run(tmp_path))
    heading, row = invoke("ps").stdout.splitlines()
    assert heading.split() == ["NAME", "PID", "APPLICATION", "WORKER", "TYPE", "ADDRESSES", "METRICS", "UPTIME"]
    assert row.split()[:5] == ["shop", str(os.getpid()), "shop:app", "gthread", "http://127.0.0.1:8000"]
    assert row.endswith(("2m 10s", "2m 11s"))
    assert json.loads(invoke("ps", "--format", "json").stdout)[0]["pid"] == os.getpid()


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_list_is_the_catalogue() -> None:
    result = invoke("metrics", "list", "--format", "json")
    assert [entry["name"] for entry in json.loads(result.stdout)] == [spec.name for spec in CATALOG]
    assert len(invoke("metrics", "list").stdout.splitlines()) == len(CATALOG) + 1


def test_dump_without_an_instance() -> None:
    result = invoke("metrics", "dump")
    assert result.exit_code == ExitCode.NO_INSTANCE
    assert told(result).startswith("promgun: error: no running promgun instance. Start one with")


def test_serve_names_its_own_option_for_an_address_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = invoke("metrics", "serve", "--dir", str(tmp_path), "--bind", f"127.0.0.1:{taken.getsockname()[1]}")
    assert result.exit_code == ExitCode.METRICS_ADDRESS
    assert "already in use. Choose another with --bind (127.0.0.1:0 takes a free port)" in told(result)


def test_dump_takes_one_source(tmp_path: Path) -> None:
    result = invoke("metrics", "dump", "--dir", str(tmp_path), "--url", "127.0.0.1:1")
    assert result.exit_code == ExitCode.USAGE
    assert told(result) == "promgun: error: --dir and --url cannot be given together. Name one source"


def test_dump_to_a_directory_is_refused(tmp_path: Path) -> None:
    result = invoke("metrics", "dump", "--output", str(tmp_path))
    assert result.exit_code == ExitCode.USAGE
    assert "is a directory" in told(result)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> str:
    """A source with two families; gives what names it."""
    text = "# HELP shop_up Up.\n# TYPE shop_up gauge\nshop_up 1.0\n# HELP tills Tills.\n# TYPE tills gauge\ntills 2.0\n"
    monkeypatch.setattr(
        "promgun.instances.page_source.UrlSource.families", lambda _self: list(text_string_to_metric_families(text))
    )
    return "--url=somewhere"


def test_dump_prints_the_page(page: str) -> None:
    assert invoke("metrics", "dump", page).stdout.splitlines()[2::3] == ["shop_up 1.0", "tills 2.0"]


def test_dump_of_some(page: str) -> None:
    result = invoke("metrics", "dump", page, "--match", "shop*", "--match", "x", "--format", "json")
    assert [family["name"] for family in json.loads(result.stdout)] == ["shop_up"]


@pytest.mark.parametrize("form", ["text", "openmetrics", "json", "table"])
def test_dump_to_a_file_is_what_it_prints(page: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "page"
    result = invoke("metrics", "dump", page, "--format", form, "--output", str(path))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert (
        path.read_text()
        == invoke("metrics", "dump", page, "--format", form).stdout
        == invoke("metrics", "dump", page, "--format", form, "--output", "-").stdout
    )


def test_dump_to_a_place_that_is_not_there(page: str, tmp_path: Path) -> None:
    result = invoke("metrics", "dump", page, "--output", str(tmp_path / "absent" / "page"))
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "cannot write" in told(result)
