"""``promgun export``: every field is an option, errors are one line, files are whole."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

from promgun.cli import export as commands
from promgun.cli.main import main
from promgun.export.autoscaling import Scaling
from promgun.export.command import ServerOptions
from promgun.export.grafana import GrafanaOptions, grafana
from promgun.export.kubernetes import KubernetesOptions, kubernetes
from promgun.export.rules import RulesOptions, Thresholds, rules
from promgun.export.scrape import ScrapeOptions, scrape
from promgun.export.systemd import SystemdOptions, systemd

KINDS = ("grafana", "rules", "scrape", "kubernetes", "systemd")


def invoke(*args: str) -> tuple[int, str, str]:
    """Run a command line as the entry point does; give exit code, output, errors."""
    with (
        redirect_stdout(io.StringIO()) as stdout,
        redirect_stderr(io.StringIO()) as stderr,
        pytest.raises(SystemExit) as ended,
    ):
        main(["export", *args])
    assert isinstance(ended.value.code, int)
    return ended.value.code, stdout.getvalue(), stderr.getvalue()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("grafana", grafana(GrafanaOptions())),
        ("rules", rules(RulesOptions())),
        ("scrape", scrape(ScrapeOptions())),
        ("kubernetes", kubernetes(KubernetesOptions())),
        ("systemd", systemd(SystemdOptions())),
    ],
)
def test_without_options(kind: str, text: str) -> None:
    assert invoke(kind) == (0, text, "")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            "grafana --title Shop --uid shop --job shop --tag a --tag b --refresh 1m --span 2h",
            grafana(GrafanaOptions(title="Shop", uid="shop", job="shop", tags=("a", "b"), refresh="1m", span="2h")),
        ),
        (
            "rules --job shop --by cluster --label a=b --operator --operator-label c=d --slow-seconds 0.3 --deaths 2",
            rules(
                RulesOptions(
                    job="shop",
                    by=("cluster",),
                    labels=("a=b",),
                    operator=True,
                    operator_labels=("c=d",),
                    thresholds=Thresholds(slow_seconds=0.3, deaths=2),
                )
            ),
        ),
        (
            "scrape --job s --target a:1 --target b:2 --label c=d --interval 5s --files f --rules r --push-gateway p:9",
            scrape(
                ScrapeOptions(
                    job="s",
                    targets=("a:1", "b:2"),
                    labels=("c=d",),
                    interval="5s",
                    files="f",
                    rules="r",
                    push_gateway="p:9",
                )
            ),
        ),
        (
            "kubernetes --name shop --min 3 --max 4 --keda --workers 5 --bind 0.0.0.0:80 shop:app -- --max-requests 9",
            kubernetes(
                KubernetesOptions(
                    name="shop",
                    scaling=Scaling(least=3, most=4, keda=True),
                    server=ServerOptions(
                        app="shop:app",
                        bind="0.0.0.0:80",
                        metrics_bind="0.0.0.0:9164",
                        workers=5,
                        arguments=("--max-requests", "9"),
                    ),
                )
            ),
        ),
        (
            "systemd --name shop --user a --group b --directory /c --program /d --env E=f -- shop:app --preload",
            systemd(
                SystemdOptions(
                    name="shop",
                    user="a",
                    group="b",
                    directory="/c",
                    program="/d",
                    environment=("E=f",),
                    server=ServerOptions(app="shop:app", arguments=("--preload",)),
                )
            ),
        ),
    ],
    ids=KINDS,
)
def test_options_reach_what_is_made(words: str, text: str) -> None:
    assert invoke(*words.split()) == (0, text, "")


def declared(kind: Any) -> set[str]:
    """Return the names of the fields that options are made of, those of the parts included."""
    names = set()
    for one in fields(kind):
        value = getattr(kind, one.name)
        names |= declared(value) if one.metadata.get("part") else {one.name}
    return names


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (commands.export_grafana, GrafanaOptions()),
        (commands.export_rules, RulesOptions()),
        (commands.export_scrape, ScrapeOptions()),
        (commands.export_kubernetes, KubernetesOptions()),
        (commands.export_systemd, SystemdOptions()),
    ],
    ids=KINDS,
)
def test_every_field_is_an_option_with_a_help(command: click.Command, options: Any) -> None:
    names = [param.name for param in command.params]
    assert len(set(names)) == len(names)
    assert set(names) == declared(options) | {"output"}
    assert all(param.help for param in command.params if isinstance(param, click.Option))


def test_output_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "dashboard.json"
    assert invoke("grafana", "--output", str(file)) == (0, "", "")
    assert json.loads(file.read_text())["uid"] == "promgun"
    assert list(tmp_path.iterdir()) == [file]
    assert invoke("scrape", "--output", "-")[1].startswith("# For prometheus.yml")


def test_what_cannot_be_made_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "prometheus.yml"
    file.write_text("before")
    code, out, err = invoke("scrape", "--target", "nowhere", "--output", str(file))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("promgun: error: 'nowhere' is not an address")
    assert file.read_text() == "before"


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    code, _, err = invoke("rules", "--output", str(tmp_path / "none" / "rules.yml"))
    assert code == 1
    assert err.startswith("promgun: error: cannot write ")


@pytest.mark.parametrize(
    "words", ["rules --deaths many", "kubernetes --worker-type threads", "scrape surplus", "cloud"]
)
def test_wrong_command_lines(words: str) -> None:
    code, out, err = invoke(*words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
