"""Gunicorn's configuration as promgun's master has it."""

from __future__ import annotations

import copy

import promgun.config.gunicorn_settings  # noqa: F401 - our settings must exist before a Config is built
from promgun.master.instrumented_config import InstrumentedConfig
from promgun.workers._config_cache import cache_settings


def test_settings_of_ours_are_listed_when_they_were_changed() -> None:
    cfg = InstrumentedConfig()
    ours = {"metrics_bind", "metrics_dir", "stack_dump_at"}
    assert ours <= set(cfg.settings)
    assert not ours & dict(cfg.settings.items()).keys()
    assert cfg.settings.items() >= {("timeout", cfg.settings["timeout"])}
    cfg.set("metrics_dir", "/run/shop")
    assert ours & dict(cfg.settings.items()).keys() == {"metrics_dir"}


def test_no_setting_is_lost_to_copies() -> None:
    cfg = InstrumentedConfig()
    for copied in (copy.deepcopy(cfg), copy.copy(cfg)):
        assert copied.settings.keys() == cfg.settings.keys()
    assert "\nmetrics_bind " in str(cfg)
    cache_settings(cfg)
    assert cfg.__dict__["metrics_max_label_sets"] == cfg.settings["metrics_max_label_sets"].get()
