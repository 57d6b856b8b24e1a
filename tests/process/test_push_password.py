"""The password of a Pushgateway: it arrives there, and is seen nowhere else."""

from __future__ import annotations

import shlex
import signal
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from promgun.errors import ExitCode
from tests.process.test_endpoint_push import answer, gateway
from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import send

SECRET = "s3cret-of-the-gateway"
#: A user and a password that are not quoted as a URL wants it; a gateway takes them, so nothing may miss them.
USER, PASSWORD = "o'brien", f"{SECRET} a@{SECRET}"
AUTHORIZATION = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
#: Answers with the environment that Python knows of, and with what leads to settings from a worker.
APP = """\
import gc, os, sys

WORKERS = []

def app(environ, start_response):
    if not WORKERS:
        from gunicorn.workers.base import Worker
        WORKERS.extend(one for one in gc.get_objects() if isinstance(one, Worker))
    (worker,) = WORKERS
    told = [dict(os.environ)]
    for cfg in (worker.cfg, worker.app.cfg, worker.log.cfg):
        told += [cfg.push_gateway, getattr(cfg.push_gateway, "password", ""), cfg.settings["push_gateway"].get()]
        told += [str(cfg), cfg.env_orig]
    told += [worker.app.environment_at_start, worker.app.run_settings.overrides, sys.argv, sys.orig_argv]
    start_response("200 OK", [])
    return [repr(told).encode()]
"""


class Way:
    """A way in which the password is given: arguments, environment, and configuration file, for a gateway's address."""

    def __init__(self, address: str, sandbox: Sandbox) -> None:
        self.plain, self.full = f"http://{USER}@{address}", f"http://{USER}:{PASSWORD}@{address}"
        self.path = sandbox.write("password", f"{PASSWORD}\nnot this\n")
        self.args: tuple[str, ...] = ()
        self.env: Mapping[str, str] = {}
        self.config: str | None = None


def by_file(way: Way) -> None:
    way.args = ("--push-gateway", way.plain, "--push-gateway-password-file", str(way.path))


def by_variable_with_a_file(way: Way) -> None:
    way.env = {"PROMGUN_PUSH_GATEWAY": way.plain, "PROMGUN_PUSH_GATEWAY_PASSWORD_FILE": str(way.path)}


def by_variable(way: Way) -> None:
    way.env = {"PROMGUN_PUSH_GATEWAY": way.full}


def by_gunicorn_variable(way: Way) -> None:
    way.env = {"GUNICORN_CMD_ARGS": shlex.join(["--push-gateway", way.full, "--threads", "1"])}


def by_configuration_file(way: Way) -> None:
    way.config = f"push_gateway = {way.full!r}\n"


def by_flag(way: Way) -> None:
    way.args = (f"--push-gateway={way.full}",)


WAYS = [by_file, by_variable_with_a_file, by_variable, by_gunicorn_variable, by_configuration_file, by_flag]


def memory_of(pid: int) -> str:
    """Return the environment that /proc shows of a process."""
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")


def check_environments(server: PromgunProcess, master: int | None = None) -> None:
    """No child of a master has the password in its environment, nor does its Python see it."""
    children = psutil.Process(master or server.master_pid).children()
    assert len(children) >= 2, "a worker and the metrics process"
    assert [child.pid for child in children if SECRET in memory_of(child.pid)] == []
    assert SECRET not in send(server.address).text


@pytest.mark.skipif(not psutil.LINUX, reason="/proc is Linux's")
@pytest.mark.parametrize("give", WAYS)
def test_it_arrives_and_is_seen_nowhere_else(sandbox: Sandbox, give: Any) -> None:
    sandbox.write("env.py", APP)
    with gateway(answer(200)) as gate:
        way = Way(gate.url, sandbox)
        give(way)
        with PromgunProcess(
            *way.args, "--log-level", "debug", app="env:app", env=way.env, config=way.config, sandbox=sandbox, workers=1
        ) as server:
            check_environments(server)
            server.send_signal(signal.SIGHUP)
            server.expect("gunicorn_reloads_total", 1, result="ok")
            server.expect("gunicorn_workers", 1, state="booted")
            check_environments(server)
            assert server.stop() == 0
            assert SECRET not in server.log
            assert ("stands on the command line" in server.log) is (give is by_flag)
    assert [headers["Authorization"] for _, headers, _ in gate.seen] == [AUTHORIZATION]


@pytest.mark.skipif(not psutil.LINUX, reason="/proc is Linux's")
@pytest.mark.parametrize("give", [by_variable, by_gunicorn_variable])
def test_it_is_handed_to_the_master_of_an_upgrade(sandbox: Sandbox, give: Any) -> None:
    sandbox.write("env.py", APP)
    with gateway(answer(200)) as gate:
        way = Way(gate.url, sandbox)
        give(way)
        with PromgunProcess(app="env:app", env=way.env, sandbox=sandbox, workers=1) as server:
            old = server.master_pid
            server.send_signal(signal.SIGUSR2)
            server.expect("gunicorn_workers", 2, state="booted")
            server.send_signal(signal.SIGTERM, old)
            assert server.wait() == 0
            assert gate.seen == []
            check_environments(server)
            assert SECRET not in memory_of(server.master_pid), "of the new master's own"
    assert [headers["Authorization"] for _, headers, _ in gate.seen] == [AUTHORIZATION]


@pytest.mark.parametrize("give", WAYS)
def test_print_config_masks_it(sandbox: Sandbox, give: Any) -> None:
    way = Way("127.0.0.1:9", sandbox)
    give(way)
    if way.config:
        sandbox.write("gunicorn.conf.py", way.config)
    result = sandbox.run("-m", "promgun", "run", "--print-config", *way.args, "promgun.demo:app", env=way.env)
    assert result.returncode == 0, result.stderr
    assert SECRET not in result.stdout + result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("push_gateway ")]
    assert line.split(" = ")[1] in {"http://o'brien:***@127.0.0.1:9", "http://o'brien@127.0.0.1:9"}


BAD = f"ftp://batch:{SECRET}@127.0.0.1:9"


@pytest.mark.parametrize(
    ("args", "env", "config"),
    [
        (("--push-gateway", BAD), {}, ""),
        (("--push-gateway", f"batch:{SECRET}@127.0.0.1"), {}, ""),
        (("demo:app", f"http://batch:{SECRET}@127.0.0.1:9"), {}, ""),
        (("--push-gateway", f"http://batch:1/{SECRET}@127.0.0.1"), {}, ""),
        (("demo:app", f"http://{USER}:{PASSWORD}@127.0.0.1:9"), {}, ""),
        (("demo:app", f"batch:{SECRET}@127.0.0.1:9"), {}, ""),
        ((), {"PROMGUN_PUSH_GATEWAY": BAD}, ""),
        ((), {"GUNICORN_CMD_ARGS": f"--push-gateway {BAD}"}, ""),
        ((), {"GUNICORN_CMD_ARGS": f"--push-gatewai http://batch:{SECRET}@127.0.0.1:9"}, ""),
        ((), {}, f"push_gateway = {BAD!r}"),
        ((), {}, f"push_gateway = 'batch:{SECRET}@127.0.0.1:9'"),
    ],
)
def test_error_does_not_repeat_it(sandbox: Sandbox, args: tuple[str, ...], env: dict[str, str], config: str) -> None:
    sandbox.write("gunicorn.conf.py", config)
    result = sandbox.run("-m", "promgun", "run", "--check-config", "promgun.demo:app", *args, env=env)
    assert result.returncode in {ExitCode.CONFIGURATION, ExitCode.USAGE}
    assert result.stderr.startswith("promgun: error: ")
    assert SECRET not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("url", "make", "reason"),
    [
        ("http://batch@a", Path.unlink, "No such file"),
        ("http://batch@a", lambda path: path.write_text("\nsecond"), "its first line holds no password"),
        ("http://batch@a", lambda path: path.write_bytes(b"\xff\n"), "its first line holds no password"),
        ("http://batch@a", lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
        ("http://batch:x@a", Path.touch, "has a password too"),
        ("http://a", Path.touch, "was given without a user"),
        ("", Path.touch, "was given without a user"),
    ],
)
def test_file_that_cannot_be_used(sandbox: Sandbox, url: str, make: Any, reason: str) -> None:
    path = sandbox.write("password", SECRET)
    make(path)
    args = (*(("--push-gateway", url) if url else ()), "--push-gateway-password-file", "password", "promgun.demo:app")
    result = sandbox.run("-m", "promgun", "run", "--check-config", *args)
    assert result.returncode == ExitCode.CONFIGURATION
    assert result.stderr.startswith("promgun: error: --push-gateway-password-file ")
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_reload_without_the_file_is_refused_and_another_password_is_pushed(sandbox: Sandbox) -> None:
    with gateway(answer(200)) as gate:
        way = Way(gate.url, sandbox)
        by_file(way)
        way.path.write_text("old\n")
        with PromgunProcess(*way.args, sandbox=sandbox, workers=1, config="timeout = 30\n") as server:
            for number, bad in enumerate((f"metrics_bind = {BAD!r}", f"push_gateway = {BAD!r}; 1 / 0"), 1):
                sandbox.write("gunicorn.conf.py", bad)
                server.send_signal(signal.SIGHUP)
                wait_until(lambda: server.log.count("Reload refused") == number)  # noqa: B023 - called at once
            assert "ZeroDivisionError" in server.log
            assert SECRET not in server.log
            sandbox.write("gunicorn.conf.py", "")
            moved = way.path.rename(sandbox.directory / "moved")
            server.send_signal(signal.SIGHUP)
            wait_until(lambda: server.log.count("Reload refused") == 3)
            assert "cannot be read: No such file" in server.log
            moved.rename(way.path)
            way.path.write_text(PASSWORD)
            server.send_signal(signal.SIGHUP)
            server.expect("gunicorn_reloads_total", 1, result="ok")
    assert [headers["Authorization"] for _, headers, _ in gate.seen] == [AUTHORIZATION]
