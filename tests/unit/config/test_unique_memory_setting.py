"""How often unique memory is read: by the setting under ``promgun run``, by the variable under plain Gunicorn."""

from __future__ import annotations

import pytest
from gunicorn.config import Config

from promgun.config.unique_memory import unique_memory_from, unique_memory_of

VARIABLE = "PROMGUN_METRICS_UNIQUE_MEMORY"


def test_the_variable_is_whole_seconds() -> None:
    assert unique_memory_from({}) == 60
    assert unique_memory_from({VARIABLE: ""}) == 60
    assert unique_memory_from({VARIABLE: "0"}) == 0
    assert unique_memory_from({VARIABLE: "900"}) == 900
    for bad in ("-1", "1.5", "a minute"):
        with pytest.raises(ValueError, match=f"{VARIABLE}: '{bad}' is not a whole number of seconds"):
            unique_memory_from({VARIABLE: bad})


def test_a_worker_goes_by_its_setting_before_the_variable() -> None:
    from promgun.config import gunicorn_settings  # noqa: F401, PLC0415 - makes Gunicorn know it

    cfg = Config()
    cfg.set("metrics_unique_memory", "5")
    assert unique_memory_of(cfg, {VARIABLE: "7"}) == 5
    del cfg.settings["metrics_unique_memory"]
    assert unique_memory_of(cfg, {VARIABLE: "7"}) == 7
    assert unique_memory_of(cfg, {VARIABLE: "x"}) == 60
    assert unique_memory_of(cfg, {}) == 60


def test_negative_seconds_are_refused() -> None:
    cfg = Config()
    cfg.set("metrics_unique_memory", "0")
    assert cfg.metrics_unique_memory == 0
    with pytest.raises(ValueError, match="must be positive"):
        cfg.set("metrics_unique_memory", "-1")
    with pytest.raises(ValueError, match="whole number of seconds"):
        unique_memory_from({VARIABLE: "-1"})
