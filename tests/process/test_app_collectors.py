"""``--metrics-collector``: the application's own collectors, and what they cannot do to the page."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from promgun.config.collectors import AppCollectors
from promgun.endpoint.collectors import CollectorProcess
from promgun.endpoint.process import PACKAGE_FOLDER
from tests.support.harness import PromgunProcess, is_alive, wait_until


def test_collectors_are_on_the_page_and_cannot_take_it_down() -> None:
    config = 'metrics_collector = ["collecting:Stock", "collecting:Slow", "collecting:Raises", "collecting:no_factory"]'
    with PromgunProcess("-c", "gunicorn.conf.py", config=config) as server:
        wait_until(lambda: server.scrape().sum("shop_stock") == 5)
        page = server.fresh()
        assert page.value("shop_stock", kind='a "book"\n') == 5
        assert page.value("shop_slow") == 1
        assert page.value("gunicorn_up") == 1
        pid = int(page.sum("shop_collector_pid_total"))
        assert pid not in {server.master_pid, server.metrics_pid(), *server.workers()}
        refused = ("'gunicorn_up'", "'shop_collector_pid_total'")
        for said in ("RuntimeError: no stock", "LookupError: no database", *refused):
            assert sum(said in line for line in server.log.splitlines()) == 1, said
        assert page.value("promgun_store_errors_total", reason="corrupt") == len(refused)

        server.sandbox.write("hang", "")
        began = time.monotonic()
        page = server.scrape()
        assert 4.5 < time.monotonic() - began < 45
        assert page.value("gunicorn_up") == 1
        assert not page.sum("shop_stock")
        wait_until(lambda: not is_alive(pid))
        assert "took longer than 5 s" in server.log

        (server.sandbox.directory / "hang").unlink()
        wait_until(lambda: server.scrape().sum("shop_stock") == 5, deadline=20)
        pid = int(server.fresh().sum("shop_collector_pid_total"))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.scrape().sum("shop_stock") == 5, deadline=20)
        pid = int(server.fresh().sum("shop_collector_pid_total"))
        metrics = server.metrics_pid()
        assert metrics is not None
        os.kill(metrics, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize("wrong", ["shop", "shop:", "shop:a b", ":Stock"])
def test_a_name_that_is_none_is_refused(wrong: str) -> None:
    server = PromgunProcess("--metrics-collector", wrong)
    server.start()
    assert server.wait() == 2
    assert "MODULE:FACTORY" in server.log
    server.sandbox.close()


def collectors(tmp_path: Path, code: str, seconds: float = 5.0) -> CollectorProcess:
    (tmp_path / "shop_collectors.py").write_text(code)
    named = AppCollectors(("shop_collectors:Stock",), (str(tmp_path),))
    return CollectorProcess(named, PACKAGE_FOLDER, seconds=seconds)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os\nos._exit(3)", "ended with status 3"),
        ("class Stock:\n    def collect(self):\n        import time\n        time.sleep(60)", "took longer than 0.5 s"),
        ("class Stock:\n    def collect(self):\n        import os\n        os._exit(4)", "ended with status 4"),
        ("import sys\nclass Stock:\n    def collect(self):\n        sys.exit()", "ended with status 0"),
    ],
)
def test_collectors_that_end_or_hang_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, said: str
) -> None:
    process = collectors(tmp_path, code, seconds=0.5)
    try:
        wait_until(lambda: not process.families() and said in caplog.text)
    finally:
        process.close()


def test_a_process_that_fails_again_and_again_is_tried_less_often(tmp_path: Path) -> None:
    now = [0.0]
    named = AppCollectors(("shop_collectors:Stock",), (str(tmp_path),))
    (tmp_path / "shop_collectors.py").write_text(
        f"import os\nopen({str(tmp_path / 'tries')!r}, 'a').write('x')\nos._exit(3)"
    )
    process = CollectorProcess(named, PACKAGE_FOLDER, clock=lambda: now[0])
    for second in range(40):
        now[0] = float(second)
        assert process.families() == []
    process.close()
    # at 0, 1 and 2, then after 5 and 15 seconds
    assert len((tmp_path / "tries").read_text()) == 5
