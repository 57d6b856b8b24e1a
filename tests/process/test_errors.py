"""What goes wrong is one clear line with the next step, the exit code of its kind, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from tests.support.harness import PROMGUN, PromgunProcess, Sandbox, wait_until
from tests.support.refusals import (
    APP_LOAD,
    CONFIGURATION,
    DEMO,
    FREE,
    METRICS_ADDRESS,
    STORE,
    USAGE,
    WORKER_BOOT,
    assert_one_line,
    fail,
    fail_each,
)
from tests.support.sandbox import WORKER_TYPES

#: A module of this name is imported by Python itself at its start; it hides the libraries that it names.
HIDING = """
import sys
from importlib.machinery import PathFinder
class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""


# -- the application --


def test_no_application(sandbox: Sandbox) -> None:
    ran = fail(sandbox, *FREE, code=2)
    assert_one_line(ran, "No application", "promgun run ")


APPLICATIONS = {
    "no_such_module:app": ("No module named 'no_such_module'", "--chdir"),
    "promgun.no_such_part:app": ("No module named 'promgun.no_such_part'",),
    "probe:aap": ("no attribute 'aap'", "Did you mean 'probe:app'?", "echo"),
    "probe:zzzzzzzz": ("no attribute 'zzzzzzzz'", "app", "echo"),
    "shapes.py:application": ("file name", "shapes:application"),
    ":app": ("':app'",),
    "shapes:create_app(": ("create_app(",),
}


def test_application_that_cannot_be_there(sandbox: Sandbox) -> None:
    each = fail_each(sandbox, *((app, *FREE) for app in APPLICATIONS), code=APP_LOAD)
    for ran, words in zip(each, APPLICATIONS.values(), strict=True):
        assert_one_line(ran, *words)


def test_near_miss_of_a_module_in_the_folder(sandbox: Sandbox) -> None:
    sandbox.write("myshop.py", "def app(environ, start_response): pass\n")
    ran = fail(sandbox, "myshpo:app", *FREE, code=APP_LOAD)
    assert_one_line(ran, "Did you mean 'myshop:app'?")


def test_module_that_fails_to_import_shows_its_own_traceback(sandbox: Sandbox) -> None:
    broken = ("broken_import:app", *FREE, "-k")
    each = fail_each(
        sandbox,
        *((*broken, kind, *preload) for kind in WORKER_TYPES for preload in ((), ("--preload",))),
        code=APP_LOAD,
    )
    for ran in each:
        assert "ModuleNotFoundError: No module named 'a_module_that_nobody_has'" in ran.stderr, ran
        assert "broken_import.py" in ran.stderr, ran
        assert "/gunicorn/" not in ran.stderr, ran
        assert "/promgun/" not in ran.stderr, ran
        assert ran.stderr.count("Traceback") == 1, ran


def test_factory_that_fails_shows_its_own_traceback(sandbox: Sandbox) -> None:
    ran = fail(sandbox, "broken_boot:create_app()", "--workers", "4", *FREE, code=APP_LOAD)
    assert "RuntimeError: no database in process" in ran.stderr
    assert "broken_boot.py" in ran.stderr


@pytest.mark.parametrize(
    ("app", "words"),
    [("shapes:NUMBER", "must be callable"), ("shapes:create_app(1, 2, 3)", "takes from 0 to 1 positional arguments")],
)
def test_application_that_is_none(sandbox: Sandbox, app: str, words: str) -> None:
    ran = fail(sandbox, app, *FREE, code=APP_LOAD)
    assert words in ran.stderr


def test_worker_that_fails_to_boot(sandbox: Sandbox) -> None:
    sandbox.write("gunicorn.conf.py", "def post_worker_init(worker):\n    raise RuntimeError('no luck')\n")
    ran = fail(sandbox, DEMO, *FREE, "--workers", "3", code=WORKER_BOOT)
    assert "RuntimeError: no luck" in ran.stderr


# -- worker types --


def test_unknown_worker_type(sandbox: Sandbox) -> None:
    for option in ("--worker-type", "-k", "--worker-class"):
        ran = fail(sandbox, DEMO, option, "gevnt", *FREE, code=USAGE)
        assert_one_line(ran, "gevnt", "gevent")


def test_unknown_worker_type_in_the_configuration(sandbox: Sandbox) -> None:
    sandbox.write("gunicorn.conf.py", "worker_class = 'gevnt'\n")
    ran = fail(sandbox, DEMO, *FREE, code=CONFIGURATION)
    assert_one_line(ran, "gevnt", "gevent")


def test_worker_class_that_cannot_be_loaded(sandbox: Sandbox) -> None:
    ran = fail(sandbox, DEMO, "-k", "no_such_module.Worker", *FREE, code=CONFIGURATION)
    assert_one_line(ran, "no_such_module.Worker")


@pytest.mark.parametrize("name", ["gevent", "eventlet"])
def test_worker_type_whose_library_is_not_installed(sandbox: Sandbox, name: str) -> None:
    sandbox.write("sitecustomize.py", HIDING.replace("{names}", repr({name})))
    ran = fail(sandbox, DEMO, "-k", name, *FREE, code=WORKER_BOOT)
    assert_one_line(ran, name, f"pip install 'promgun[{name}]'")


# -- addresses --


def test_application_address_in_use(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ran = fail(sandbox, DEMO, "--bind", address, "--metrics-bind", "127.0.0.1:0", code=CONFIGURATION)
    assert_one_line(ran, address, "in use", "--bind")


def test_metrics_address_in_use(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for daemon in ((), ("--daemon",)):
            ran = fail(sandbox, DEMO, "--bind", "127.0.0.1:0", "--metrics-bind", address, *daemon, code=METRICS_ADDRESS)
            assert_one_line(ran, address, "in use", "--metrics-bind")


def test_metrics_socket_in_use(sandbox: Sandbox) -> None:
    path = sandbox.directory / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        ran = sandbox.run(*PROMGUN, DEMO, "--bind", "127.0.0.1:0", "--metrics-bind", f"unix:{path}")
        assert ran.returncode == METRICS_ADDRESS
        assert_one_line(ran, str(path), "in use")
        assert path.exists()
    path.unlink()


def test_one_metrics_address_of_two_in_use(sandbox: Sandbox) -> None:
    path = sandbox.directory / "first.sock"
    with socket.create_server(("127.0.0.1", 0)) as other:
        binds = ("--metrics-bind", f"unix:{path}", "--metrics-bind", f"127.0.0.1:{other.getsockname()[1]}")
        assert_one_line(fail(sandbox, DEMO, "--bind", "127.0.0.1:0", *binds, code=METRICS_ADDRESS), "in use")
    assert not path.exists()


# -- the store --


def test_store_directory_that_is_a_file(sandbox: Sandbox) -> None:
    path = sandbox.write("store", "")
    assert_one_line(fail(sandbox, DEMO, *FREE, "--metrics-dir", str(path), code=STORE), str(path), "--metrics-dir")
    assert path.is_file()


@pytest.mark.needs_root("give a directory away")
def test_store_directory_of_somebody_else(sandbox: Sandbox) -> None:
    path = sandbox.directory / "store"
    path.mkdir()
    os.chown(path, 65534, 65534)
    ran = fail(sandbox, DEMO, *FREE, "--metrics-dir", str(path), code=STORE)
    assert_one_line(ran, str(path), "another user", "--metrics-dir")
    assert not list(path.iterdir())


def test_store_directory_that_anybody_may_write(sandbox: Sandbox) -> None:
    path = sandbox.directory / "store"
    path.mkdir()
    path.chmod(0o777)
    assert_one_line(fail(sandbox, DEMO, *FREE, "--metrics-dir", str(path), code=STORE), str(path), "chmod")


def test_store_directory_of_another_live_run(sandbox: Sandbox) -> None:
    path = sandbox.directory / "store"
    with PromgunProcess("--metrics-dir", str(path), sandbox=sandbox) as server:
        server.expect("gunicorn_up", 1)
        before = sorted(entry.name for entry in path.iterdir())
        ran = sandbox.run(*PROMGUN, DEMO, *FREE, "--metrics-dir", str(path))
        assert ran.returncode == STORE
        assert_one_line(ran, str(path), "in use")
        assert sorted(entry.name for entry in path.iterdir()) == before
        server.expect("gunicorn_up", 1)
    assert path.is_dir()
    assert not list(path.glob("*.json"))


# -- values --


OPTIONS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("--workers", "many"), ("--workers", "many")),
    (("--no-such-option",), ("--no-such-option",)),
    (("--wrokers", "2"), ("--wrokers", "--workers")),
    (("--metrics-duration-buckets", "3,2,1"), ("--metrics-duration-buckets", "rise")),
    (("--metrics-max-label-sets", "0"), ("--metrics-max-label-sets", "at least 1")),
    (("--timeout", "-1"), ("--timeout",)),
    (("--log-level",), ("--log-level",)),
]


def test_bad_option(sandbox: Sandbox) -> None:
    each = fail_each(sandbox, *((DEMO, *FREE, *args) for args, _ in OPTIONS), code=USAGE)
    for ran, (_, words) in zip(each, OPTIONS, strict=True):
        assert_one_line(ran, *words)


def test_bad_variables(sandbox: Sandbox) -> None:
    ran = fail(sandbox, DEMO, *FREE, env={"PROMGUN_WORKERS": "many"}, code=USAGE)
    assert_one_line(ran, "PROMGUN_WORKERS", "many")
    ran = fail(sandbox, DEMO, *FREE, env={"GUNICORN_CMD_ARGS": "--workers many"}, code=CONFIGURATION)
    assert_one_line(ran, "GUNICORN_CMD_ARGS", "many")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers = 'many'\n", ("workers", "many")),
        ("metrics_bind = 17\n", ("metrics_bind", "17")),
        ("metrics_duration_buckets = [3, 2]\n", ("metrics_duration_buckets", "rise")),
        ("metrics_label = ['route=/x']\n", ("metrics_label", "'route' is a label of promgun's own")),
        ("chdir = '/no/such/folder'\n", ("chdir", "/no/such/folder")),
    ],
)
def test_bad_value_in_the_configuration_file(sandbox: Sandbox, text: str, words: tuple[str, ...]) -> None:
    sandbox.write("gunicorn.conf.py", text)
    assert_one_line(fail(sandbox, DEMO, *FREE, code=CONFIGURATION), *words)


def test_configuration_file_that_fails_shows_its_own_traceback(sandbox: Sandbox) -> None:
    sandbox.write("gunicorn.conf.py", "workers = 1\nnothing_of_this_name\n")
    ran = fail(sandbox, DEMO, *FREE, code=CONFIGURATION)
    assert 'gunicorn.conf.py", line 2' in ran.stderr
    assert "/gunicorn/" not in ran.stderr
    assert "/promgun/" not in ran.stderr
    assert "promgun: error: Configuration file " in ran.stderr
    assert "NameError: name 'nothing_of_this_name' is not defined" in ran.stderr


def test_unreadable_configuration(sandbox: Sandbox) -> None:
    (sandbox.directory / "folder.py").mkdir()
    for name in ("missing.py", "folder.py"):
        assert_one_line(fail(sandbox, DEMO, *FREE, "-c", name, code=CONFIGURATION), name, "cannot be read")
    ran = fail(sandbox, DEMO, *FREE, "-c", "python:no_such_module", code=CONFIGURATION)
    assert "no_such_module" in ran.stderr


# -- Ctrl-C --


#: Has the process that leads its group interrupt the whole group at one of its imports of promgun.
INTERRUPTS_ITSELF = """
import os, signal, sys

class Interrupt:
    left = int(os.environ["TEST_INTERRUPT_AT_IMPORT"])

    def find_spec(self, name, path=None, target=None):
        if name.startswith("promgun") and os.getpid() == os.getpgrp():
            self.left -= 1
            if not self.left:
                os.killpg(0, signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.unmeasured("signals come while an interpreter starts")
@pytest.mark.parametrize("number", [1, 2, 3, 5, 9, 20, 40])
def test_interrupt_while_promgun_is_imported(sandbox: Sandbox, number: int) -> None:
    """The interpreter's own start is not ours to handle, so the first moment is the import of the package."""
    sandbox.records_stores = True
    sandbox.write("sitecustomize.py", INTERRUPTS_ITSELF)
    environment = {"TEST_INTERRUPT_AT_IMPORT": str(number)}
    server = PromgunProcess("-k", "sync", "--workers", "2", sandbox=sandbox, env=environment)
    server.start()
    assert server.wait() in {0, 130, -signal.SIGINT}, f"{server.process.poll()}: {server.log}"
    wait_until(lambda: not sandbox.left_behind(), message=lambda: str(sandbox.left_behind()))


@pytest.mark.unmeasured("signals come while an interpreter starts")
@pytest.mark.parametrize("mark", ["Starting gunicorn", "Listening at", "Metrics at", "Booting worker"])
def test_interrupt_when_a_line_was_logged(sandbox: Sandbox, mark: str) -> None:
    """Ctrl-C goes to the whole group: to workers that were just forked too."""
    sandbox.records_stores = True
    server = PromgunProcess("-k", "sync", "--workers", "2", "--graceful-timeout", "3", sandbox=sandbox)
    server.start()
    wait_until(lambda: mark in server.log)
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.wait() in {0, 130, -signal.SIGINT}, f"{server.process.poll()}: {server.log}"
    wait_until(lambda: not sandbox.left_behind(), message=lambda: str(sandbox.left_behind()))
