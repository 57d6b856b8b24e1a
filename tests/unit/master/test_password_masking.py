"""What a fork of the master can still read of the Pushgateway's password."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import promgun.config.gunicorn_settings  # noqa: F401 - our settings must exist before a Config is built
from promgun.config.run_settings import RunSettings
from promgun.master.instrumented_config import InstrumentedConfig
from promgun.master.password_masking import mask_in_worker

URL = "http://batch:s3cret@127.0.0.1:9"


def configuration() -> Any:
    """Return a configuration with a password, as one generation of workers has it."""
    cfg = InstrumentedConfig()
    cfg.env_orig = {"PROMGUN_PUSH_GATEWAY": URL}
    cfg.set("push_gateway", URL)
    return cfg


@pytest.mark.parametrize("log", [SimpleNamespace(cfg={"a": 1}), SimpleNamespace(), None, "configuration"])
def test_no_configuration_in_use_has_it_whatever_the_logger_is(log: Any) -> None:
    now, before, of_the_log = configuration(), configuration(), configuration()
    if log == "configuration":
        log = SimpleNamespace(cfg=of_the_log)
    app = SimpleNamespace(
        cfg=now,
        environment_at_start={"PROMGUN_PUSH_GATEWAY": URL},
        run_settings=RunSettings(app="app:app", overrides={"push_gateway": URL}),
    )
    workers = {1: SimpleNamespace(cfg=before), 2: SimpleNamespace(cfg=now)}
    mask_in_worker(SimpleNamespace(app=app, cfg=now, log=log, WORKERS=workers))
    seen = [app.environment_at_start, app.run_settings.overrides]
    for cfg in (now, before, *([of_the_log] if getattr(log, "cfg", None) is of_the_log else [])):
        seen += [cfg.env_orig, cfg.push_gateway.password, str(cfg)]
    assert [one for one in seen if "s3cret" in str(one)] == []
