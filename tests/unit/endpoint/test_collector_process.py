"""What runs the application's collectors: it answers line by line, and passes on what can be passed on."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from promgun.endpoint import collector_process

MODULE = """
from prometheus_client.core import GaugeMetricFamily

print("printed while it was loaded")


class Stock:
    asked = 0

    def collect(self):
        print("printed while it was asked")
        self.asked += 1
        yield GaugeMetricFamily("stock", "In stock.", value=self.asked)


class Raises:
    def collect(self):
        raise RuntimeError("no stock")


class Space:
    made = Stock


def fails():
    raise LookupError("no database")
"""


def answers(
    monkeypatch: pytest.MonkeyPatch, *names: str, asked: int = 2, parent: int | None = None
) -> list[dict[str, Any]]:
    """Run collectors, ask them so many times, and return what was answered on standard output."""
    monkeypatch.setattr(collector_process, "dies_with_parent", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n" * asked))
    before = os.dup(1)
    with tempfile.TemporaryFile() as output:
        os.dup2(output.fileno(), 1)
        try:
            collector_process.run(names, os.getppid() if parent is None else parent)
        finally:
            os.dup2(before, 1)
            os.close(before)
        output.seek(0)
        return [json.loads(line) for line in output]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"collecting_{os.path.basename(tmp_path)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_the_first_answer_comes_by_itself_and_then_one_a_line(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    first, *later = answers(monkeypatch, f"{module}:Stock", f"{module}:Space.made", f"{module}:Raises")
    assert first == {"families": [], "errors": []}
    assert [[found[4][0][2] for found in answer["families"]] for answer in later] == [[1.0, 1.0], [2.0, 2.0]]
    assert later[0]["families"][0] == ["stock", "gauge", "In stock.", "", [["stock", {}, 1.0]]]
    assert later[0]["errors"] == [f"{module}:Raises raised RuntimeError: no stock"]


def test_a_collector_that_cannot_be_made_leaves_the_others(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    names = f"{module}:fails", f"{module}:Missing", "no.such.module:Stock", f"{module}:Stock"
    first, later = answers(monkeypatch, *names, asked=1)
    assert [error.split(" ")[0] for error in first["errors"]] == list(names[:3])
    assert "LookupError: no database" in first["errors"][0]
    assert [found[0] for found in later["families"]] == ["stock"]


def test_without_the_parent_that_started_it_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    assert answers(monkeypatch, f"{module}:Stock", parent=1 << 30) == []
    assert module not in sys.modules


class Gives:
    """A collector of what a test gives it."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Give them."""
        yield from self._families


def test_a_family_is_passed_on_as_plain_values() -> None:
    histogram = HistogramMetricFamily("h", "Of \udc80.", unit="seconds")
    histogram.add_metric([], buckets=[("1", 2), ("+Inf", 3)], sum_value=4)
    odd = GaugeMetricFamily("g", "Help.", labels=["a"])
    odd.add_metric(["\udcff"], 1)
    families, errors = collector_process._collect({"one": Gives(histogram, odd)})
    assert not errors
    assert families == [
        [
            "h_seconds",
            "histogram",
            "Of ?.",
            "seconds",
            [
                ["h_seconds_bucket", {"le": "1"}, 2.0],
                ["h_seconds_bucket", {"le": "+Inf"}, 3.0],
                ["h_seconds_count", {}, 3.0],
                ["h_seconds_sum", {}, 4.0],
            ],
        ],
        ["g", "gauge", "Help.", "", [["g", {"a": "?"}, 1.0]]],
    ]
    assert json.loads(json.dumps(families)) == families


def test_what_is_no_number_is_an_error_of_its_collector_alone() -> None:
    broken = Metric("broken", "Help.", "gauge")
    broken.add_sample("broken", {}, None)  # type: ignore[arg-type] # the point
    good = GaugeMetricFamily("good", "Help.", value=1)
    families, errors = collector_process._collect({"bad": Gives(broken), "fine": Gives(good)})
    assert [found[0] for found in families] == ["good"]
    assert [error.split(":")[0] for error in errors] == ["bad raised TypeError"]
