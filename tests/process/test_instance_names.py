"""One name for an instance: what ``promgun ps`` shows is on the status, in ``top``, and taken by ``--instance``."""

from __future__ import annotations

import json
import signal

import pytest

from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import send

PROMGUN = ("-m", "promgun")


def promgun(sandbox: Sandbox, *args: str) -> str:
    """Run a command of promgun beside the servers of a sandbox; return what it prints."""
    done = sandbox.run(*PROMGUN, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(sandbox: Sandbox) -> dict[int, str]:
    """Return the names that ps shows, by the pid of the master."""
    return {run["pid"]: run["name"] for run in json.loads(promgun(sandbox, "ps", "--format", "json"))}


def status_name(server: PromgunProcess) -> str:
    """Return the name that the status page shows."""
    instance = json.loads(send(server.metrics_address, path="/status.json").text)["instance"]
    return str(instance["name"])


def title_name(frame: str) -> str:
    """Return the name in the title of a frame of ``top``."""
    return frame.splitlines()[0].removeprefix("promgun top").split()[0]


def check_everywhere(server: PromgunProcess, name: str) -> None:
    """Check that a server bears this name wherever names are shown, and that --instance means this server by it."""
    sandbox, pid = server.sandbox, server.master_pid
    assert names(sandbox)[pid] == name
    assert status_name(server) == name
    requests = json.loads(promgun(sandbox, "ps", "--requests", "--format", "json"))
    assert {row["pid"] for row in requests if row["instance"] == name} == set(server.workers())
    frame = promgun(sandbox, "metrics", "top", "--once", "--interval", "0.2", "--instance", name)
    assert title_name(frame) == name
    assert all(str(worker) in frame for worker in server.workers())
    for given in (name, str(pid)):
        page = server.dump("--instance", given, "--match", "gunicorn_master_pid", "--match", "gunicorn_workers")
        assert page.sum("gunicorn_workers", state="target") == len(server.workers())
    completed = sandbox.run(
        *PROMGUN,
        env={"_PROMGUN_COMPLETE": "fish_complete", "COMP_LINE": f"promgun metrics dump --instance {name}"},
    )
    assert name in [line.split("\t")[1] for line in completed.stdout.splitlines()]


def test_second_server_of_a_name_is_numbered_everywhere() -> None:
    with (
        Sandbox() as sandbox,
        PromgunProcess("--name", "shop", sandbox=sandbox, workers=1) as first,
        PromgunProcess("--name", "shop", sandbox=sandbox, workers=2) as second,
    ):
        check_everywhere(first, "shop")
        check_everywhere(second, "shop-2")
        assert "promgun ps shows this instance as shop-2" in second.log
        assert "shows this instance" not in first.log
        second.send_signal(signal.SIGHUP)
        wait_until(lambda: len(names(sandbox)) == 2 and second.scrape().sum("gunicorn_reloads_total", result="ok") == 1)
        check_everywhere(first, "shop")
        assert status_name(second) == names(sandbox)[second.master_pid] == "shop-2"


@pytest.mark.parametrize(
    ("given", "shown"),
    [("caf\u00e9 <b>/../\n\x1b[2J; --all", "caf-b-..-2J---all"), (None, "promgun.demo-app")],
    ids=["odd", "application"],
)
def test_odd_names_are_cleaned_once(given: str | None, shown: str) -> None:
    with PromgunProcess(*(["--name", given] if given else []), workers=1) as server:
        check_everywhere(server, shown)


def test_masters_of_an_upgrade_bear_the_name_of_the_newest() -> None:
    """A changed name comes with the new master, and goes with it when the upgrade is taken back."""
    with Sandbox() as sandbox, PromgunProcess(config='proc_name = "shop"', sandbox=sandbox, workers=1) as server:
        old = server.master_pid
        check_everywhere(server, "shop")
        sandbox.write("gunicorn.conf.py", 'proc_name = "till"')
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: len(server.listening()) == 2 and server.workers())
        new = server.master_pid
        wait_until(lambda: names(sandbox) == {old: "till", new: "till"})
        wait_until(lambda: status_name(server) == "till")
        for given in ("till", str(old), str(new)):
            frame = promgun(sandbox, "metrics", "top", "--once", "--interval", "0.2", "--instance", given)
            assert title_name(frame) == "till"
            assert server.dump("--instance", given).sum("gunicorn_workers", state="target") >= 1
        server.send_signal(signal.SIGTERM, new)
        wait_until(lambda: names(sandbox) == {old: "shop"})
        wait_until(lambda: status_name(server) == "shop")
