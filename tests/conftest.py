"""What every test shares: programs it may need, a limit on its time, and the worker types to try."""

from __future__ import annotations

import faulthandler
import gc
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.measuring import MEASURED_SERVERS
from tests.support.sandbox import WORKER_TYPES, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

    from tests.support.scheduling import ByServer

#: Seconds that one test may take, set-up and tear-down included: a limit for what hangs, not for what is slow.
TIME_LIMIT = 300
#: Where even the interpreter does not answer any more, the process is ended that many seconds later.
GRACE = 60


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Mark the tests of servers, and of what tests use, that are not measured, before pytest selects by markers.

    What takes long begins first, so that no processor waits for it at the end.
    """
    for item in items:
        folder = item.path.parent.name
        if folder == "support" or (folder == "process" and item.path.stem not in MEASURED_SERVERS):
            item.add_marker(pytest.mark.unmeasured("measured servers are in tests of their own: it would only repeat"))
    try:
        return (yield)
    finally:
        items.sort(key=lambda item: item.get_closest_marker("time_limit") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer | None:
    """Keep tests that share a server together, unless another way is asked for."""
    from tests.support.scheduling import ByServer  # noqa: PLC0415 - tests run without xdist as well

    return ByServer(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_finish() -> None:
    """Leave the tests themselves out of each garbage collection: some tests ask for one after another."""
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    """Have the programs that are tested hear what ends them: a shell that runs the tests in the background has them
    ignore Ctrl-C, and nohup a hang-up, and both are passed on (POSIX, shell 2.11 and nohup).
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    # How fast examples are made and run is the machine's affair.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that lacks a program or root; in CI nothing is skipped, so there it fails."""
    programs = [program for marker in item.iter_markers("needs") for program in marker.args]
    lacking = [f"{program} is not installed" for program in programs if not shutil.which(program)]
    if os.geteuid() != 0:
        lacking += [f"only root may {marker.args[0]}" for marker in item.iter_markers("needs_root")]
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(f"{lacking[0]}, and CI has everything", pytrace=False)
    if lacking:
        pytest.skip(lacking[0])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """End a test that takes too long: by an exception, so that its processes are ended too, else by force."""
    marker = item.get_closest_marker("time_limit")
    limit = int(marker.args[0]) if marker else TIME_LIMIT

    def too_long(_number: int, _frame: FrameType | None) -> None:
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        raise TimeoutError(f"the test took more than {limit} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(limit)
    faulthandler.dump_traceback_later(limit + GRACE, exit=True, file=sys.__stderr__ or 2)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.fixture(scope="module", params=WORKER_TYPES)
def worker_type(request: pytest.FixtureRequest) -> str:
    """Each worker type of ``promgun run`` in turn."""
    return str(request.param)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Give a place for processes, in which nothing may be left."""
    with Sandbox() as place:
        yield place
