"""What the hook of each framework costs a request, in this process: the application behind promgun's accounting, with
and without routes, in turns. Run: ``python benchmarks/frameworks.py``; a table of microseconds a request.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

from tests.support.routed import RoutedWSGI  # noqa: E402 - needs the path

#: A path of each application of ``tests/apps/routes``.
PATHS = {
    "flask": "/users/5",
    "django": "/users/5/",
    "falcon": "/users/5",
    "pyramid": "/users/5",
    "bottle": "/users/5",
}
ROUNDS = 60
REQUESTS = 200


def timed(ask: Callable[[str, str], object], path: str) -> float:
    """Return the microseconds of CPU that a request takes."""
    start = time.thread_time_ns()
    for _ in range(REQUESTS):
        ask("GET", path)
    return (time.thread_time_ns() - start) / REQUESTS / 1_000


def main() -> None:
    """Measure each framework, and print the table."""
    print(f"{'framework':12}{'without':>10}{'with':>10}{'routes cost':>14}")
    for framework, path in PATHS.items():
        application = importlib.import_module(f"tests.apps.routes.{framework}_app").app
        routed = RoutedWSGI(application)
        sources = routed.accounting.routes
        without, cost = [], []
        for _ in range(ROUNDS):
            sources.active = False
            before = timed(routed.ask, path)
            sources.active = True
            without.append(before)
            cost.append(timed(routed.ask, path) - before)
        base, more = median(without), median(cost)
        print(f"{framework:12}{base:8.1f} us{base + more:8.1f} us{more:11.2f} us")


if __name__ == "__main__":
    main()
