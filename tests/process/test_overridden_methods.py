"""The methods of PrometheusMixin that a subclass may override, and the switch of the configuration's cache."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.support.harness import PromgunProcess, Sandbox
from tests.support.http_client import Connection, Request, load
from tests.support.sandbox import wait_until

LEAVE_CALLS = "import json\ndef worker_exit(server, worker):\n    json.dump(worker.calls, open('calls.json', 'w'))\n"


@pytest.mark.parametrize("worker_class", ["own_worker.CountingWorker", "own_worker.CountingThreads"])
def test_each_is_called_for_what_it_is_named_after(sandbox: Sandbox, worker_class: str) -> None:
    with PromgunProcess("-k", worker_class, app="probe:app", sandbox=sandbox, config=LEAVE_CALLS, workers=1) as server:
        assert load(server.address, [Request("/ok")] * 3 + [Request("/fail/ValueError")]) == {200: 3, 500: 1}
        with Connection(server.address) as connection:
            connection.socket.sendall(b"nonsense\r\n\r\n")
            assert connection.read_response().status == 400
        server.expect("gunicorn_requests_total", 5)
        page = server.fresh()
        assert page.by("status", "gunicorn_requests_total") == {"200": 3, "500": 1, "400": 1}
        assert page.sum("gunicorn_failed_requests_total", error_type="ValueError") == 1
        assert page.sum("gunicorn_invalid_requests_total") == 1
        wait_until((sandbox.directory / "updated").exists)
        assert server.stop() == 0
    calls = Counter(json.loads((sandbox.directory / "calls.json").read_text()))
    assert calls.pop("update_worker_metrics") >= 1
    assert calls == {
        "_generic_handle_request": 4,
        "_handle_request_metrics": 5,
        "_handle_request_error_metrics": 1,
        "_generic_handle_error": 2,
    }


LEAVE_CACHE = "def worker_exit(server, worker):\n    open('cached', 'w').write(str('timeout' in vars(worker.cfg)))\n"


@pytest.mark.parametrize(("option", "cached"), [((), "True"), (("--no-config-cache",), "False")])
def test_settings_are_cached_unless_that_is_turned_off(sandbox: Sandbox, option: tuple[str, ...], cached: str) -> None:
    with PromgunProcess(*option, sandbox=sandbox, config=LEAVE_CACHE) as server:
        server.expect("gunicorn_workers", 1, state="booted")
        assert server.stop() == 0
    assert (sandbox.directory / "cached").read_text() == cached
