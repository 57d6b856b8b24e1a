"""``--check-config`` says what ``run`` would say before its first fork: the same line, the same exit code."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.forked import run_each
from tests.support.harness import PROMGUN, PromgunProcess, Sandbox
from tests.support.refusals import (
    APP_LOAD,
    CONFIGURATION,
    DEMO,
    FREE,
    METRICS_ADDRESS,
    STORE,
    USAGE,
    WORKER_BOOT,
    fail,
)
from tests.support.sandbox import WORKER_TYPES

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path


LOGGED = re.compile(r"\[\d{4}-\d\d-\d\d .*\] \[\d+\] \[[A-Z]+\] ")
APPS = {
    "fails": "import a_module_that_nobody_has\n",
    "raises": "def app(environ, start_response): pass\nraise ValueError('no luck')\n",
    "ends": "import sys\nsys.exit('DATABASE_URL is not set')\n",
    "ends_with_a_number": "import sys\ndef app(environ, start_response): pass\nsys.exit(3)\n",
    "wrong": "def app(environ, start_response:\n    pass\n",
    "null": "app = '\\0'\n\0\n",
    "hidden": "globals()['other'] = len\n",
    "kinds": "number = 42\nnothing = None\n"
    "def broken(): raise RuntimeError('no database')\ndef none(): return None\ndef one(a): return a\n",
    "calls": "class A:\n async def __call__(self, scope, receive, send): pass\n"
    "class W:\n def __call__(self, environ, start_response): pass\n"
    "asgi = A()\nwsgi = W()\n",
    "package/__init__": "",
}
#: What is asked for, the exit code, and words of the line.
APPLICATIONS = {
    "no module": ("no_such_module:app", APP_LOAD, "No module named 'no_such_module'"),
    "no module in a package": ("package.none:app", APP_LOAD, "No module named 'package.none'"),
    "no attribute": ("kinds:app", APP_LOAD, "no attribute 'app'"),
    "no attribute, seen by the import": ("hidden:app", APP_LOAD, "Its callables are: other"),
    "a file name": ("kinds.py:app", APP_LOAD, "is a file name"),
    "no name": ("kinds:", APP_LOAD, "does not name an application"),
    "no expression": ("kinds:one(", APP_LOAD, "neither a name nor a call"),
    "arguments that are no literals": ("kinds:one(len)", APP_LOAD, "literal"),
    "import error": ("fails:app", APP_LOAD, "a_module_that_nobody_has"),
    "error": ("raises:app", APP_LOAD, "ValueError: no luck"),
    "exit with a text": ("ends:app", APP_LOAD, "DATABASE_URL is not set"),
    "exit with a number": ("ends_with_a_number:app", APP_LOAD, "SystemExit: 3"),
    "syntax error": ("wrong:app", APP_LOAD, "SyntaxError"),
    "null bytes": ("null:app", APP_LOAD, "null bytes"),
    "not callable": ("kinds:number", APP_LOAD, "must be callable"),
    "None": ("kinds:nothing", APP_LOAD, "kinds:nothing"),
    "broken factory": ("kinds:broken()", APP_LOAD, "RuntimeError: no database"),
    "factory of nothing": ("kinds:none()", APP_LOAD, "kinds:none()"),
    "factory with too few arguments": ("kinds:one()", APP_LOAD, "missing 1 required positional argument"),
}
OPTIONS = {
    "port too high": (("--bind", "127.0.0.1:99999"), CONFIGURATION, "65535"),
    "port of letters": (("--bind", "127.0.0.1:many"), CONFIGURATION, "many"),
    "address of another machine": (("--bind", "192.0.2.1:8000"), CONFIGURATION, "no such address"),
    "unknown host": (("--bind", "no-such-host.invalid:8000"), CONFIGURATION, "no-such-host.invalid"),
    "address twice": (("--bind", "127.0.0.1:1", "--bind", "127.0.0.1:1"), CONFIGURATION, "twice"),
    "closed descriptor": (("--bind", "fd://99"), CONFIGURATION, "not open"),
    "no folder": (("--bind", "unix:/no/such/app.sock"), CONFIGURATION, "folder does not exist"),
    "long path": (("--bind", f"unix:{'long' * 30}"), CONFIGURATION, "107 bytes"),
    "no socket": (("--bind", "unix:plain-file"), CONFIGURATION, "not a socket"),
    "metrics: no port": (("--metrics-bind", "nonsense:"), USAGE, "'--metrics-bind'"),
    "metrics: port of letters": (("--metrics-bind", "nonsense:port"), USAGE, "'--metrics-bind'"),
    "metrics: port alone": (("--metrics-bind", "9164"), USAGE, "'--metrics-bind'"),
    "metrics: port too high": (("--metrics-bind", "127.0.0.1:99999"), USAGE, "65535"),
    "metrics: no path": (("--metrics-bind", "unix:"), USAGE, "'--metrics-bind'"),
    "metrics: long path": (("--metrics-bind", f"unix:{'long' * 30}"), USAGE, "103 bytes"),
    "metrics: second of two": (("--metrics-bind", "127.0.0.1:0", "--metrics-bind", "::1"), USAGE, "[::1]:9164"),
    "metrics: another machine": (("--metrics-bind", "192.0.2.1:0"), METRICS_ADDRESS, "no such address"),
    "metrics: unknown host": (("--metrics-bind", "no-such-host.invalid:0"), METRICS_ADDRESS, "not known here"),
    "metrics: no folder": (("--metrics-bind", "unix:/no/such/m.sock"), METRICS_ADDRESS, "folder does not exist"),
    "metrics: file as folder": (("--metrics-bind", "unix:plain-file/m.sock"), METRICS_ADDRESS, "not a folder"),
    "metrics: no socket": (("--metrics-bind", "unix:plain-file"), METRICS_ADDRESS, "not a socket"),
    "metrics: the application's": (
        ("--bind", "127.0.0.1:1", "--metrics-bind", "127.0.0.1:1"),
        METRICS_ADDRESS,
        "application is served there",
    ),
    "store: a file": (("--metrics-dir", "plain-file"), STORE, "cannot be used"),
    "store: below a file": (("--metrics-dir", "plain-file/store"), STORE, "cannot be used"),
    "store: open to all": (("--metrics-dir", "open"), STORE, "writable by everybody"),
    "certificate": (("--certfile", "/no/such.pem"), CONFIGURATION, "--certfile"),
    "heartbeats": (("--worker-tmp-dir", "/no/such"), CONFIGURATION, "--worker-tmp-dir"),
    "error log": (("--error-logfile", "/no/such/log"), CONFIGURATION, "--error-logfile, /no/such/log"),
    "access log": (("--access-logfile", "."), CONFIGURATION, "--access-logfile"),
    "log configuration": (("--log-config", "/no/such.conf"), CONFIGURATION, "--log-config"),
    "pid file": (("--pid", "/no/such/pid"), CONFIGURATION, "--pid"),
    "worker type": (("-k", "gevnt"), USAGE, "Did you mean 'gevent'"),
    "worker class": (("-k", "no_such_module.Worker"), CONFIGURATION, "cannot be loaded"),
    "logger class": (("--logger-class", "no_such_module.Logger"), CONFIGURATION, "cannot be loaded"),
    "configuration file": (("-c", "missing.py"), CONFIGURATION, "cannot be read"),
    "configuration that fails": (("-c", "failing.py"), CONFIGURATION, "NameError"),
    "bad option": (("--workers", "many"), USAGE, "--workers"),
}


@pytest.fixture
def project(sandbox: Sandbox) -> Sandbox:
    """A folder with applications that cannot be loaded, and with files that stand in the way."""
    for name, text in APPS.items():
        sandbox.write(f"{name}.py", text)
    sandbox.write("plain-file", "")
    sandbox.write("failing.py", "nothing_of_this_name\n")
    (sandbox.directory / "open").mkdir()
    (sandbox.directory / "open").chmod(0o777)
    return sandbox


def told(ran: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a command said to people: all lines that are not Gunicorn's log."""
    return [line for line in ran.stderr.splitlines() if not LOGGED.match(line)]


def judge(
    ran: subprocess.CompletedProcess[str], checked: subprocess.CompletedProcess[str], *, code: int, words: str
) -> list[str]:
    """Return what is wrong: both must end with the code and say the same, these words among it."""
    said = told(checked)
    right = {
        f"run: exit code {ran.returncode}: {ran.stderr}": ran.returncode == code,
        f"check: exit code {checked.returncode}: {checked.stderr}": checked.returncode == code,
        f"{said} is not {told(ran)}": said == told(ran),
        f"a check writes no log: {checked.stderr}": checked.stderr.splitlines() == said,
        f"no error: {said}": bool(said) and said[-1].startswith("promgun: error: "),
        f"{words!r} is not in: {checked.stderr}": words in checked.stderr,
        f"printed: {checked.stdout}": not checked.stdout,
    }
    return [wrong for wrong, holds in right.items() if not holds]


def compare(sandbox: Sandbox, *args: str, code: int, words: str, env: dict[str, str] | None = None) -> None:
    """Run and check the same thing, each in an interpreter of its own."""
    ran = fail(sandbox, *args, code=code, env=env)
    checked = fail(sandbox, *args, "--check-config", code=code, env=env)
    assert judge(ran, checked, code=code, words=words) == []


def compare_all(sandbox: Sandbox, asked: Mapping[str, tuple[Sequence[str], int, str]]) -> None:
    """Run and check many things, each in a fork of an interpreter that has imported promgun."""
    sandbox.records_stores = True
    runs = [["run", *args] for args, _, _ in asked.values()]
    ran = run_each(sandbox, runs)
    checked = run_each(sandbox, [[*run, "--check-config"] for run in runs])
    assert not sandbox.left_behind()
    seen = dict(zip(asked, zip(ran, checked, strict=True), strict=True))
    judged = {name: judge(*seen[name], code=code, words=words) for name, (_, code, words) in asked.items()}
    assert {name: wrong for name, wrong in judged.items() if wrong} == {}


def test_application(project: Sandbox) -> None:
    compare_all(project, {name: ((app, *FREE), code, words) for name, (app, code, words) in APPLICATIONS.items()})


def test_option(project: Sandbox) -> None:
    addresses = ("--bind", "--metrics-bind")
    free = {
        name: [word for option in addresses if option not in args for word in (option, "127.0.0.1:0")]
        for name, (args, _, _) in OPTIONS.items()
    }
    compare_all(
        project, {name: ((DEMO, *free[name], *args), code, words) for name, (args, code, words) in OPTIONS.items()}
    )


def test_preload_says_what_a_worker_says(project: Sandbox) -> None:
    broken = ("kinds:broken()", *FREE, "-k")
    asked = {
        f"{kind} {preload}": ([*broken, kind, *preload], APP_LOAD, "RuntimeError: no database")
        for kind in WORKER_TYPES
        for preload in ((), ("--preload",))
    }
    for preload in ((), ("--preload",)):
        of_asgi, of_wsgi = ("calls:asgi", *FREE, *preload), ("calls:wsgi", *FREE, "-k", "asgi", *preload)
        asked[f"ASGI under WSGI {preload}"] = ([*of_asgi], APP_LOAD, "calls:asgi is an ASGI application, which worker")
        asked[f"WSGI under ASGI {preload}"] = ([*of_wsgi], APP_LOAD, "calls:wsgi is a WSGI application, which worker")
    compare_all(project, asked)


def test_no_application(sandbox: Sandbox) -> None:
    compare(sandbox, *FREE, code=USAGE, words="No application")


def test_metrics_address_that_cannot_be_read_from_each_place(sandbox: Sandbox) -> None:
    bind = ("--bind", "127.0.0.1:0")
    places = {
        "PROMGUN_METRICS_BIND": (USAGE, "the variable PROMGUN_METRICS_BIND"),
        "GUNICORN_CMD_ARGS": (CONFIGURATION, "GUNICORN_CMD_ARGS"),
    }
    for variable, (code, words) in places.items():
        value = "nonsense:" if variable.startswith("PROMGUN") else "--metrics-bind nonsense:"
        compare(sandbox, DEMO, *bind, env={variable: value}, code=code, words=words)
    sandbox.write("gunicorn.conf.py", "metrics_bind = ['nonsense:']\n")
    compare(sandbox, DEMO, *bind, code=CONFIGURATION, words="gunicorn.conf.py")


def test_library_that_is_missing(sandbox: Sandbox) -> None:
    sandbox.write(
        "sitecustomize.py",
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'gevent' else find(name, *rest)\n",
    )
    compare(sandbox, DEMO, *FREE, "-k", "gevent", code=WORKER_BOOT, words="pip install 'promgun[gevent]'")


def test_an_address_in_use_is_the_one_thing_that_a_check_does_not_judge(sandbox: Sandbox) -> None:
    path, store = sandbox.directory / "m.sock", sandbox.directory / "store"
    with ExitStack() as stack:
        busy = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(path))
        unix.listen()
        stack.enter_context(PromgunProcess("--metrics-dir", str(store), sandbox=sandbox))
        port = f"127.0.0.1:{busy.getsockname()[1]}"
        for args, code in (
            (("--bind", port, "--metrics-bind", "127.0.0.1:0"), CONFIGURATION),
            (("--bind", "127.0.0.1:0", "--metrics-bind", port), METRICS_ADDRESS),
            (("--bind", "127.0.0.1:0", "--metrics-bind", f"unix:{path}"), METRICS_ADDRESS),
            ((*FREE, "--metrics-dir", str(store)), STORE),
        ):
            ran = sandbox.run(*PROMGUN, DEMO, *args)
            assert (ran.returncode, "in use" in ran.stderr) == (code, True), ran.stderr
            checked = sandbox.run(*PROMGUN, DEMO, *args, "--check-config")
            assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    path.unlink()


def test_what_runs_passes_in_silence_and_leaves_no_trace(sandbox: Sandbox) -> None:
    sandbox.write("project/shop.py", "import os\ncolour = os.environ['COLOUR']\nfrom shapes import create_app\n")
    before = contents(sandbox.directory)
    files = ("--error-logfile", "error.log", "--pid", "pid", "--metrics-dir", "new/store", "--metrics-bind", "unix:s")
    for args in (
        (DEMO, "--bind", "0.0.0.0:80"),
        ("shop:create_app('x')", "--pythonpath", "project", "--env", "COLOUR=red"),
        ("shop:create_app('x')", "--chdir", "project", "--env", "COLOUR=red", "--preload"),
        (DEMO, *files, "--bind", "unix:app.sock"),
        ("counting:app", "-k", "gthread", "--reload"),
    ):
        checked = sandbox.run(*PROMGUN, *args, "--check-config", env={"PYTHONDONTWRITEBYTECODE": "1"})
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", ""), args
        assert contents(sandbox.directory) == before, args
        assert not sandbox.left_behind()


def contents(folder: Path) -> set[Path]:
    """Return all paths below a folder."""
    return set(folder.rglob("*"))


def test_print_config_prints_and_checks(project: Sandbox) -> None:
    good = project.run(*PROMGUN, DEMO, "--workers", "7", "--print-config")
    assert (good.returncode, good.stderr) == (0, "")
    assert re.search(r"^workers += 7$", good.stdout, re.MULTILINE)
    bad = project.run(*PROMGUN, "kinds:broken()", "--print-config")
    assert bad.returncode == APP_LOAD
    assert re.search(r"^metrics_bind += ", bad.stdout, re.MULTILINE)
    assert told(bad)[-1].startswith("promgun: error: ")


def test_a_reloader_s_application_is_checked_as_well(project: Sandbox) -> None:
    """With ``--reload`` a server shows the error until the file is corrected; who asks for a check wants to know."""
    ran = fail(project, "fails:app", *FREE, "--reload", "--check-config", code=APP_LOAD)
    assert "a_module_that_nobody_has" in ran.stderr
