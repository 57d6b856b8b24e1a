"""Causes from wait statuses, intents and hints."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from promgun.master.exit_causes import End, OomWatch, classify, control_group_events
from promgun.metrics.catalog import EXIT_CAUSES
from promgun.store.board import ExitHint

if TYPE_CHECKING:
    from pathlib import Path


def exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (End(status=0, booted=True, aborted=True), "timeout"),
        (End(status=signal.SIGKILL, booted=True, aborted=True, killed_by_us=True), "timeout"),
        (End(status=signal.SIGABRT, booted=True, aborted=True), "timeout"),
        (End(status=signal.SIGKILL, booted=True), "killed"),
        (End(status=signal.SIGKILL, booted=True, oom=True), "oom"),
        (End(status=signal.SIGKILL, booted=True, killed_by_us=True, intent="shutdown"), "graceful_timeout"),
        (End(status=signal.SIGKILL, booted=True, intent="shutdown"), "killed"),
        (End(status=signal.SIGSEGV | 0x80, booted=True), "segfault"),
        (End(status=signal.SIGBUS, booted=True), "segfault"),
        (End(status=signal.SIGTERM, booted=True), "other_signal"),
        (End(status=signal.SIGTERM, booted=True, intent="reload"), "reload"),
        (End(status=signal.SIGILL, booted=True, intent="reload"), "other_signal"),
        # Numbers without a name: 33 is glibc's own, 40 one of the real-time signals.
        (End(status=33, booted=True), "other_signal"),
        (End(status=40, booted=True, intent="shutdown"), "other_signal"),
        (End(status=exited(3), booted=False), "boot_error"),
        (End(status=exited(9), booted=False), "boot_error"),
        (End(status=exited(3), booted=True), "app_exit"),
        (End(status=exited(4), booted=False), "app_load_error"),
        (End(status=exited(4), booted=False, intent="shutdown"), "app_load_error"),
        (End(status=0, booted=True, intent="scale_in", hint=ExitHint.SIGNALLED), "scale_in"),
        (End(status=0, booted=True, intent="shutdown", overdue=True), "graceful_timeout"),
        (End(status=0, booted=True, intent="reload", overdue=True), "reload"),
        (End(status=0, booted=True, hint=ExitHint.MAX_REQUESTS), "max_requests"),
        (End(status=0, booted=True, hint=ExitHint.PARENT_LOST), "parent_lost"),
        (End(status=0, booted=True, hint=ExitHint.SIGNALLED), "other_signal"),
        (End(status=0, booted=True, hint=ExitHint.CODE_CHANGED), "reload"),
        (End(status=exited(1), booted=True, hint=ExitHint.ABORTED), "other_signal"),
        (End(status=exited(1), booted=True, hint=ExitHint.ABORTED, aborted=True), "timeout"),
        (End(status=0, booted=True), "app_exit"),
        (End(status=exited(7), booted=True, hint=ExitHint.MAX_REQUESTS), "app_exit"),
    ],
)
def test_classify(end: End, cause: str) -> None:
    assert classify(end) == cause
    assert cause in EXIT_CAUSES


@pytest.mark.parametrize("name", ["memory.events", "memory.oom_control"])
def test_every_oom_kill_is_claimed_once(tmp_path: Path, name: str) -> None:
    events = tmp_path / name
    events.write_text("oom 2\noom_kill 2\n")
    path = control_group_events(str(tmp_path))
    assert path == events
    watch = OomWatch(path)
    assert not watch.claim()
    events.write_text("oom 9\noom_kill 4\n")
    assert [watch.claim() for _ in range(3)] == [True, True, False]


def test_an_oom_kill_that_hit_no_worker_is_forgotten_after_a_while(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 0\n")
    watch = OomWatch(events)
    events.write_text("oom_kill 1\n")
    for now in (100.0, 159.0):
        watch.forget_old(now)
    assert watch.claim()
    events.write_text("oom_kill 2\n")
    for now in (200.0, 261.0):
        watch.forget_old(now)
    assert not watch.claim()
    events.write_text("oom_kill 3\n")
    watch.forget_old(262.0)
    assert watch.claim()


def test_without_a_control_group_nothing_is_called_oom(tmp_path: Path) -> None:
    assert control_group_events(str(tmp_path)) is None
    assert not OomWatch(None).claim()
    assert not OomWatch(tmp_path / "gone").claim()
