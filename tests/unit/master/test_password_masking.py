"""What a fork of the master can still read of the Pushgateway's password."""

from __future__ import annotations

import shlex
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import promgun.config.gunicorn_settings  # noqa: F401 - our settings must exist before a Config is built
from promgun.config.run_settings import RunSettings
from promgun.master.instrumented_config import InstrumentedConfig
from promgun.master.password_masking import mask_in_worker

#: What people write, quoted as it ought to be or not; a gateway takes each.
URLS = [
    "http://batch:s3cret@127.0.0.1:9",
    "http://o'brien:s3cret pa ss3cret@127.0.0.1:9",
    "http://batch:s3cret@s3cret@127.0.0.1:9",
    "http://:s3cret@127.0.0.1:9",
    "HTTP://batch:s3cret@127.0.0.1:9",
    "http://batch:s3cret@[::1]:9",
    'http://ba"tch:"s3cret:s3cret\\s3cret@127.0.0.1:9/path',
    "http://batch://s3cret@127.0.0.1:9".replace("//s", "%2F%2Fs"),
    "http://batch:x\ts3cret@127.0.0.1:9",
]
URL = URLS[0]


def configuration(url: str = URL) -> Any:
    """Return a configuration with a password, as one generation of workers has it."""
    cfg = InstrumentedConfig()
    cfg.env_orig = {"PROMGUN_PUSH_GATEWAY": url, "DATABASE_URL": "postgres://a:b@c"}
    cfg.set("push_gateway", url)
    return cfg


def arbiter(cfg: Any, url: str = URL, log: Any = None, workers: Any = None) -> Any:
    """Return what a fork of the master has."""
    app = SimpleNamespace(
        cfg=cfg,
        environment_at_start={"PROMGUN_PUSH_GATEWAY": url, "GUNICORN_CMD_ARGS": shlex.join(["--push-gateway", url])},
        run_settings=RunSettings(app="app:app", overrides={"push_gateway": url}),
    )
    command = [["promgun", "run", f"--push-gateway={url}"], ["--push-gateway", url]]
    return SimpleNamespace(app=app, cfg=cfg, log=log, WORKERS=workers or {}, START_CTX={"args": command[0]})


@pytest.mark.parametrize("log", [SimpleNamespace(cfg={"a": 1}), SimpleNamespace(), None, "configuration"])
def test_no_configuration_in_use_has_it_whatever_the_logger_is(log: Any) -> None:
    now, before, of_the_log = configuration(), configuration(), configuration()
    if log == "configuration":
        log = SimpleNamespace(cfg=of_the_log)
    workers = {1: SimpleNamespace(cfg=before), 2: SimpleNamespace(cfg=now)}
    fork = arbiter(now, log=log, workers=workers)
    mask_in_worker(fork)
    app = fork.app
    seen = [app.environment_at_start, app.run_settings.overrides]
    for cfg in (now, before, *([of_the_log] if getattr(log, "cfg", None) is of_the_log else [])):
        seen += [cfg.env_orig, cfg.push_gateway.password, str(cfg)]
    assert [one for one in seen if "s3cret" in str(one)] == []


@pytest.mark.parametrize("url", URLS)
def test_no_spelling_of_it_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["promgun", "run", "--push-gateway", url, "app:app"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "promgun", f"--push-gateway={url}"])
    cfg = configuration(url)
    assert "s3cret" in cfg.push_gateway.password, "else it proves nothing"
    fork = arbiter(cfg, url)
    mask_in_worker(fork)
    seen = [fork.app.environment_at_start, fork.app.run_settings.overrides, fork.START_CTX, sys.argv, sys.orig_argv]
    seen += [cfg.env_orig, cfg.push_gateway, cfg.push_gateway.password, cfg]
    assert [one for one in seen if "s3cret" in str(one)] == []
    assert cfg.env_orig["DATABASE_URL"] == "postgres://a:b@c"
    assert len(sys.argv) == 5
    assert "***" in sys.argv[3]
