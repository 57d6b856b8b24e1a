"""``--metrics-collector``: the application's own collectors, and what they cannot do to the page."""

from __future__ import annotations

import os
import signal
import time

import pytest

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
        for said in ("RuntimeError: no stock", "LookupError: no database", "'gunicorn_up'"):
            assert server.log.count(said) == 1, said

        server.sandbox.write("hang", "")
        began = time.monotonic()
        page = server.scrape()
        assert 4.5 < time.monotonic() - began < 9
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
