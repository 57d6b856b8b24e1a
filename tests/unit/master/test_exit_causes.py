"""Causes from wait statuses, intents and hints."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from promgun.master.exit_causes import End, OomWatch, classify, control_group_events
from promgun.metrics.label_values import ExitCause
from promgun.store.board import ExitHint

if TYPE_CHECKING:
    from pathlib import Path


def exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (End(status=0, booted=True, aborted=True), ExitCause.TIMEOUT),
        (End(status=signal.SIGKILL, booted=True, aborted=True, killed_by_us=True), ExitCause.TIMEOUT),
        (End(status=signal.SIGABRT, booted=True, aborted=True), ExitCause.TIMEOUT),
        (End(status=signal.SIGKILL, booted=True), ExitCause.KILLED),
        (End(status=signal.SIGKILL, booted=True, oom=True), ExitCause.OOM),
        (
            End(status=signal.SIGKILL, booted=True, killed_by_us=True, intent=ExitCause.SHUTDOWN),
            ExitCause.GRACEFUL_TIMEOUT,
        ),
        (End(status=signal.SIGKILL, booted=True, intent=ExitCause.SHUTDOWN), ExitCause.KILLED),
        (End(status=signal.SIGSEGV | 0x80, booted=True), ExitCause.SEGFAULT),
        (End(status=signal.SIGBUS, booted=True), ExitCause.SEGFAULT),
        (End(status=signal.SIGTERM, booted=True), ExitCause.OTHER_SIGNAL),
        (End(status=signal.SIGTERM, booted=True, intent=ExitCause.RELOAD), ExitCause.RELOAD),
        (End(status=signal.SIGILL, booted=True, intent=ExitCause.RELOAD), ExitCause.OTHER_SIGNAL),
        # Numbers without a name: 33 is glibc's own, 40 one of the real-time signals.
        (End(status=33, booted=True), ExitCause.OTHER_SIGNAL),
        (End(status=40, booted=True, intent=ExitCause.SHUTDOWN), ExitCause.OTHER_SIGNAL),
        (End(status=exited(3), booted=False), ExitCause.BOOT_ERROR),
        (End(status=exited(9), booted=False), ExitCause.BOOT_ERROR),
        (End(status=exited(3), booted=True), ExitCause.APP_EXIT),
        (End(status=exited(4), booted=False), ExitCause.APP_LOAD_ERROR),
        (End(status=exited(4), booted=False, intent=ExitCause.SHUTDOWN), ExitCause.APP_LOAD_ERROR),
        (End(status=0, booted=True, intent=ExitCause.SCALE_IN, hint=ExitHint.SIGNALLED), ExitCause.SCALE_IN),
        (End(status=0, booted=True, intent=ExitCause.SHUTDOWN, overdue=True), ExitCause.GRACEFUL_TIMEOUT),
        (End(status=0, booted=True, intent=ExitCause.RELOAD, overdue=True), ExitCause.RELOAD),
        (End(status=0, booted=True, hint=ExitHint.MAX_REQUESTS), ExitCause.MAX_REQUESTS),
        (End(status=0, booted=True, hint=ExitHint.PARENT_LOST), ExitCause.PARENT_LOST),
        (End(status=0, booted=True, hint=ExitHint.SIGNALLED), ExitCause.OTHER_SIGNAL),
        (End(status=0, booted=True, hint=ExitHint.CODE_CHANGED), ExitCause.RELOAD),
        (End(status=exited(1), booted=True, hint=ExitHint.ABORTED), ExitCause.OTHER_SIGNAL),
        (End(status=exited(1), booted=True, hint=ExitHint.ABORTED, aborted=True), ExitCause.TIMEOUT),
        (End(status=0, booted=True), ExitCause.APP_EXIT),
        (End(status=exited(7), booted=True, hint=ExitHint.MAX_REQUESTS), ExitCause.APP_EXIT),
    ],
)
def test_classify(end: End, cause: ExitCause) -> None:
    assert classify(end) is cause


@pytest.mark.parametrize("name", ["memory.events", "memory.oom_control"])
def test_every_oom_kill_is_claimed_once(tmp_path: Path, name: str) -> None:
    events = tmp_path / name
    events.write_text("oom 2\noom_kill 2\n")
    path = control_group_events(str(tmp_path))
    assert path == events
    watch = OomWatch(path)
    assert not watch.consume()
    events.write_text("oom 9\noom_kill 4\n")
    assert [watch.consume() for _ in range(3)] == [True, True, False]


def test_an_oom_kill_that_hit_no_worker_is_forgotten_after_a_while(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 0\n")
    watch = OomWatch(events)
    events.write_text("oom_kill 1\n")
    for now in (100.0, 159.0):
        watch.forget_old(now)
    assert watch.consume()
    events.write_text("oom_kill 2\n")
    for now in (200.0, 261.0):
        watch.forget_old(now)
    assert not watch.consume()
    events.write_text("oom_kill 3\n")
    watch.forget_old(262.0)
    assert watch.consume()


def test_without_a_control_group_nothing_is_called_oom(tmp_path: Path) -> None:
    assert control_group_events(str(tmp_path)) is None
    assert not OomWatch(None).consume()
    assert not OomWatch(tmp_path / "gone").consume()
