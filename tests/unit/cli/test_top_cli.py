"""The command line of ``promgun metrics top``, and how often a view looks."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.cli.main import main
from promgun.errors import InstanceError
from promgun.status.snapshot import Details, Snapshot
from promgun.terminal.top.live import FRAME_COST, INTERVALS, Watch, can_draw


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what else runs here."""
    monkeypatch.setenv("PROMGUN_RUNTIME_DIR", str(tmp_path))


def code_of(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["metrics", "top", *args])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("value", ["0.1", "0", "-1", "nan", "inf", "soon"])
def test_interval_has_bounds(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--once", "--interval", value) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ((), 5),
        (("--once",), 5),
        (("--instance", "shop"), 5),
        (("--url", "127.0.0.1:1"), 5),
        (("--dir", "."), 5),
        (("--dir", "/nonexistent/store"), 6),
        (("--url", "ftp://127.0.0.1/"), 2),
        (("--url", "http://[x"), 2),
        (("--dir", ".", "--url", "127.0.0.1:1"), 2),
    ],
    ids=str,
)
def test_source_that_is_none_is_told_in_one_line(
    args: tuple[str, ...],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert code_of(*args) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "name%5B" not in told.err


@pytest.mark.parametrize("term", ["", "dumb", None])
def test_only_a_screen_is_drawn_on(term: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    assert can_draw()
    if term is None:
        monkeypatch.delenv("TERM")
    else:
        monkeypatch.setenv("TERM", term)
    assert not can_draw()


class Scripted:
    """A source that gives these snapshots one after another; ``None`` is an instance that is gone."""

    name = "shop"

    def __init__(self, *script: float | None) -> None:
        self._script: Iterator[float | None] = iter(script)

    def snapshot(self) -> Snapshot:
        second = next(self._script)
        if second is None:
            raise InstanceError("shop is not running", "See: promgun ps")
        return Snapshot(
            taken=second,
            at=1000.0 + second,
            up=True,
            uptime=second,
            info={},
            target=0,
            workers={},
            slots={},
            requests={"200": 10 * second},
            durations={},
            queues=(),
            exits={},
            details=Details(),
        )


def test_view_of_an_expensive_instance_is_drawn_less_often() -> None:
    watch = Watch(Scripted(1.0), 2.0)
    assert watch.pause == 2.0
    watch._costs.extend([FRAME_COST * 3] * 5)
    assert watch.pause == 6.0
    watch._costs.append(FRAME_COST / 2)
    assert watch.pause == 2.0, "one cheap frame shows that it was the machine"


def test_who_comes_back_is_watched_from_the_start() -> None:
    watch = Watch(Scripted(1.0, 2.0, None, None, 1.0, 3.0), 0.5)
    watch._resample()
    assert watch._view.interval is not None
    assert watch._view.interval.requests_per_second == 10.0
    before = watch._view
    watch._resample()
    said = watch._controls.away
    assert "waiting for it: shop is not running" in said
    assert watch.pause == 1.0, "it is not looked for all the time"
    watch._resample()
    assert (watch._view, watch._controls.away) == (before, said)
    watch._resample()
    assert watch._controls.away == ""
    assert watch._view.points == ()
    watch._resample()
    assert len(watch._view.points) == 1


def test_keys() -> None:
    watch = Watch(Scripted(1.0), 1.0)
    for key, seen in (("+", 2.0), ("=", 5.0), ("-", 2.0), ("−", 1.0), ("x", 1.0)):  # noqa: RUF001 - a minus
        watch._press(key)
        assert watch._controls.every == seen
    for _ in INTERVALS:
        watch._press("-")
    assert watch._controls.every == INTERVALS[0]
    for _ in INTERVALS:
        watch._press("+")
    assert watch._controls.every == INTERVALS[-1]
    watch._press("?")
    watch._press("p")
    assert not watch._controls.help
    assert not watch._controls.paused, "the key that leaves the help does nothing else"
