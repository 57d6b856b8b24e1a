"""A worker's configuration, read once."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.config import Config

from promgun.workers._config_cache import cache_settings


class Looked(Config):  # type: ignore[misc] # gunicorn is untyped
    """A configuration that notes each look-up that got as far as Gunicorn's own."""

    def __init__(self) -> None:
        object.__setattr__(self, "looked", [])  # before there are settings, which Config.__setattr__ asks
        super().__init__()

    def __getattr__(self, name: str) -> Any:
        if name != "settings":
            self.looked.append(name)
        return super().__getattr__(name)


def test_every_setting_says_what_it_said_before() -> None:
    plain, cached = Config(), Config()
    for cfg in (plain, cached):
        cfg.set("timeout", 7)
        cfg.set("certfile", "/c")
    cache_settings(cached)
    assert len(plain.settings) > 90
    for name in plain.settings:
        # functions and classes are compared by identity, as they should be
        assert getattr(cached, name) == getattr(plain, name), name
    assert cached.is_ssl
    assert isinstance(cached, Config)


def test_no_setting_is_looked_up_again() -> None:
    cfg = Looked()
    assert cfg.timeout == 30
    assert cfg.looked == ["timeout"]
    cache_settings(cfg)
    cfg.looked.clear()
    assert (cfg.timeout, cfg.keepalive, cfg.sendfile) == (30, 2, True)
    assert cfg.looked == []


def test_what_is_set_later_counts() -> None:
    cfg = Config()
    cache_settings(cfg)
    cache_settings(cfg)
    cfg.set("keepalive", "9")
    assert cfg.keepalive == cfg.settings["keepalive"].get() == 9
    with pytest.raises(AttributeError, match="Invalid access"):
        cfg.keepalive = 3
    with pytest.raises(AttributeError, match="No configuration setting"):
        cfg.set("nonsense", 1)
    with pytest.raises(AttributeError, match="No configuration setting"):
        _ = cfg.nonsense
