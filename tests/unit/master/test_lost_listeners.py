"""Metrics listeners whose descriptors somebody else in the master has closed, and whose numbers are in use again."""

from __future__ import annotations

import gc
import logging
import os
from typing import Any

import pytest

import promgun.config.gunicorn_settings  # noqa: F401 - our settings must exist before a Config is built
from promgun.master.context import RunContext, listen
from promgun.master.instrumented_config import InstrumentedConfig
from promgun.store.process import ProcessStore


@pytest.fixture
def cfg() -> Any:
    made = InstrumentedConfig()
    made.set("metrics_bind", ["127.0.0.1:0"])
    return made


def context_that_lost_its_listener(cfg: Any) -> tuple[RunContext, int]:
    """Return it, and the number, which is that of a pipe now."""
    context = RunContext(ProcessStore())
    context.listeners = listen(cfg)
    (number,) = [listener.fileno() for listener in context.listeners.values()]
    reading, writing = os.pipe()
    os.dup2(reading, number)
    os.close(reading)
    os.close(writing)
    return context, number


@pytest.mark.parametrize("reloads", [False, True])
def test_it_is_bound_again_and_the_number_left_alone(
    cfg: Any,
    caplog: pytest.LogCaptureFixture,
    reloads: bool,  # noqa: FBT001 - pytest's
) -> None:
    context, number = context_that_lost_its_listener(cfg)
    if reloads:
        context.listen_again(cfg)
    (listener,) = context.live_listeners(cfg, logging.getLogger("test")).values()
    gc.collect()
    os.fstat(number)
    assert listener.fileno() != number
    assert listener.getsockname()[1] > 0
    assert len(caplog.messages) == (not reloads)
    context.close_listeners()
    os.fstat(number)
    os.close(number)


def test_one_that_systemd_made_is_left_out(cfg: Any, caplog: pytest.LogCaptureFixture) -> None:
    context, number = context_that_lost_its_listener(cfg)
    context._activated = True
    for _ in range(2):
        assert dict(context.live_listeners(cfg, logging.getLogger("test"))) == {}
    assert caplog.messages == [
        "A metrics listener was closed by a hook or the application, and is not served again: systemd made it"
    ]
    gc.collect()
    os.close(number)
