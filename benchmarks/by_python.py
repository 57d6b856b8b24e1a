"""The overhead on every Python: ratios to plain Gunicorn in process and of whole servers, judged in one table.

Starts take turns: of each Python one, then of each Python the next. A start is a fresh process (fresh servers), so
that its hash seed and its layout of memory are its own. A ratio is met when the median of the starts, less half the
distance of the quartiles, is at most the aim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import twins
from interpreters import Interpreter, interpreters, make_environment
from shared import Report, Value, is_met, percentile, pinned, spread, two_cores

HERE = Path(__file__).parent
_IN_PROCESS, _SERVERS = "in process", "whole server"
_UNCACHED, _ALONE = "in process, settings not cached", "in process, measuring alone"
#: The variants of a start in process, and the figure that each gives.
_FIGURE_OF = {"promgun": _IN_PROCESS, "uncached": _UNCACHED, "measuring": _ALONE}
#: From this version on a failed look-up of an attribute is cheap, and the aim without cached settings is closer.
_CHEAP_LOOK_UPS = (3, 12)
_MOST_TIME = 600.0  # seconds for one start: it takes ten


@dataclass(slots=True)
class Subject:
    """One Python with the ratios of its starts, by figure and case; ``failed`` is what went wrong."""

    interpreter: Interpreter
    ratios: dict[str, dict[twins.Case, list[float]]] = field(default_factory=dict)
    failed: dict[twins.Case, str] = field(default_factory=dict)

    def note(self, figure: str, case: twins.Case, ratio: float) -> None:
        """Keep the ratio of one start."""
        self.ratios.setdefault(figure, {}).setdefault(case, []).append(ratio)


def aim(figure: str, version: str) -> float:
    """Return the largest ratio to plain Gunicorn that is wanted."""
    if figure in {_UNCACHED, _ALONE}:
        major, minor = version.split(".")[:2]
        return 1.04 if (int(major), int(minor)) >= _CHEAP_LOOK_UPS else 1.05
    return 1.02 if figure == _SERVERS else 1.0


def compare_pythons(report: Report, options: argparse.Namespace, cases: Sequence[twins.Case]) -> None:
    """Measure on each Python that was asked for, or that is found, and show the ratios."""
    subjects = [Subject(each) for each in interpreters(options.python)]
    for subject in subjects:
        make_environment(subject.interpreter, options.environments)
    runnable = [subject for subject in subjects if subject.interpreter.python]
    for start in range(1, options.starts + 1):
        for case in cases:
            for subject in runnable:
                if case.worker_type not in subject.interpreter.missing and case not in subject.failed:
                    _start(subject, case, options)
        print(f"start {start} of {options.starts}", file=sys.stderr, flush=True)
    _show(report, subjects, cases)


def _start(subject: Subject, case: twins.Case, options: argparse.Namespace) -> None:
    try:
        if options.only != "servers":
            _in_process(subject, case, options)
        if options.only != "process":
            subject.note(_SERVERS, case, _whole_servers(subject.interpreter.python, case, options))
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        output = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
        subject.failed[case] = " ".join((output or str(error)).strip().splitlines()[-1:])


def _in_process(subject: Subject, case: twins.Case, options: argparse.Namespace) -> None:
    python = subject.interpreter.python
    keep_alive = "yes" if case.keep_alive else "no"
    variants = ",".join(("plain", *_FIGURE_OF))
    sizes = [str(options.batches), str(options.size)]
    measured, _ = two_cores()
    with pinned(measured):
        output = _run([python, str(HERE / "twins.py"), case.worker_type, keep_alive, variants, *sizes])
    floors = {variant: percentile(figures, 0.05) for variant, figures in json.loads(output).items()}
    for variant, figure in _FIGURE_OF.items():
        subject.note(figure, case, floors[variant] / floors["plain"])


def _whole_servers(python: str, case: twins.Case, options: argparse.Namespace) -> float:
    with tempfile.NamedTemporaryFile(suffix=".json") as written:
        argv = [python, str(HERE / "overhead.py"), "--json", written.name, "--variants", "plain,promgun"]
        argv += ["--worker-types", case.worker_type, "--keep-alive", "yes" if case.keep_alive else "no"]
        argv += ["--rounds", str(options.rounds), "--seconds", str(options.seconds)]
        _run([*argv, "--connections", str(options.connections), "--starts", "1"])
        tables = json.loads(Path(written.name).read_bytes())
    ratios = [row["ratio"] for row in tables["Server CPU a request (µs)"] if row["variant"] == "promgun"]
    return float(statistics.median(ratios))


def _run(argv: Sequence[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=_MOST_TIME, cwd=HERE).stdout


# ---- report


def name_of(case: twins.Case) -> str:
    """Return the heading of a case's column."""
    return f"{case.worker_type}, keep-alive" if case.keep_alive else case.worker_type


def _show(report: Report, subjects: Sequence[Subject], cases: Sequence[twins.Case]) -> None:
    rows: list[dict[str, Value]] = []
    details: list[dict[str, Value]] = []
    for subject in subjects:
        version = subject.interpreter.version
        if subject.interpreter.reason:
            rows.append({"Python": version, "CPU to plain": subject.interpreter.reason})
            continue
        for figure in (_IN_PROCESS, _UNCACHED, _ALONE, _SERVERS):
            measured = subject.ratios.get(figure, {})
            if measured:
                judged = [_judge(version, figure, case, measured[case]) for case in cases if case in measured]
                details += judged
                rows.append(_row(version, figure, judged))
        lacking = subject.interpreter.missing | {name_of(case): why for case, why in subject.failed.items()}
        rows += [{"Python": version, "CPU to plain": f"no {what}: {why}"} for what, why in lacking.items()]
    for row in rows:
        for case in cases:
            row.setdefault(name_of(case), None)
    order = ["Python", "CPU to plain", *map(name_of, cases), "aim", "met"]
    report.table("CPU a request, to plain Gunicorn's", [{key: row.get(key) for key in order} for row in rows])
    report.keep("CPU a request, to plain Gunicorn's, by case", details)


def _judge(version: str, figure: str, case: twins.Case, ratios: Sequence[float]) -> dict[str, Value]:
    around = spread(ratios)
    limit = aim(figure, version)
    return {
        "Python": version,
        "figure": figure,
        "case": name_of(case),
        "starts": len(ratios),
        "ratio": around.median,
        "IQR": around.iqr,
        "aim": limit,
        "met": is_met(around, limit),
    }


def _row(version: str, figure: str, judged: Sequence[dict[str, Value]]) -> dict[str, Value]:
    row: dict[str, Value] = {"Python": version, "CPU to plain": figure}
    row |= {str(each["case"]): f"{each['ratio']:.3f} ± {float(each['IQR'] or 0) / 2:.3f}" for each in judged}
    missed = [str(each["case"]) for each in judged if not each["met"]]
    return row | {"aim": f"{aim(figure, version):.2f}", "met": f"NO: {'; '.join(missed)}" if missed else "yes"}
