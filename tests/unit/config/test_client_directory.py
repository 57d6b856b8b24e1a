"""``PROMETHEUS_MULTIPROC_DIR`` beside ``--metrics-dir``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import promgun.config.gunicorn_settings  # noqa: F401 - our settings must exist before a Config is built
from promgun.config.client_directory import warn_of_unused_directory
from promgun.master.instrumented_config import InstrumentedConfig

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def configuration(metrics_dir: Path | None, raw_env: Path | None = None, inherited: Path | None = None) -> Any:
    cfg = InstrumentedConfig()
    cfg.set("metrics_dir", metrics_dir and str(metrics_dir))
    cfg.set("raw_env", ["COLOUR=red", *([f"{VARIABLE}={raw_env}"] if raw_env else [])])
    cfg.env_orig = {VARIABLE: str(inherited)} if inherited else {}
    return cfg


@pytest.mark.parametrize("way", ["raw_env", "inherited"])
def test_another_directory_is_named_in_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str) -> None:
    log = logging.getLogger("test")
    mine, other = tmp_path / "mine", tmp_path / "other"
    (tmp_path / "link").symlink_to(mine)
    for named in (mine, tmp_path / "link", mine / ".." / "mine"):
        warn_of_unused_directory(configuration(mine, **{way: named}), log)
        warn_of_unused_directory(configuration(None, **{way: other}), log)
    warn_of_unused_directory(configuration(mine), log)
    assert caplog.messages == []
    warn_of_unused_directory(configuration(mine, **{way: other}), log)
    (line,) = caplog.messages
    assert f"{VARIABLE} names {other}, which is not used" in line
    assert f"files are in {mine}." in line


def test_workers_have_the_variable_with_promgun_s_directory(tmp_path: Path) -> None:
    """Else a stock collector in a view would read a directory in which nothing is."""
    assert configuration(tmp_path, raw_env=tmp_path / "other").env == {"COLOUR": "red"}
    assert configuration(None, raw_env=tmp_path).env == {"COLOUR": "red", VARIABLE: str(tmp_path)}
