"""The methods of PrometheusMixin that a subclass may override, and the switches of what saves Gunicorn work."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.support.harness import PromgunProcess, Sandbox
from tests.support.http_client import Connection, Request, load, send
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


TELL_WORKER = "def post_fork(server, worker):\n    import sys\n    sys.modules['worker_of_facts'] = worker\n"
FACTS = """
import json, sys
from gunicorn import util

def facts():
    worker = sys.modules["worker_of_facts"]
    if hasattr(worker, "config"):
        quick = any(each.__name__ == "QuickProtocol" for each in worker.config.http_protocol_class.__mro__)
    elif "gunicorn.workers.gasgi" in sys.modules:
        quick = sys.modules["gunicorn.workers.gasgi"].ASGIProtocol.__name__ == "QuickMeasuredProtocol"
    else:
        quick = util.http_date.__module__.startswith("promgun")
    return json.dumps(["timeout" in vars(worker.cfg), quick]).encode()

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [facts()]

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": facts()})
"""


@pytest.mark.parametrize(("worker_type", "app"), [("sync", "wsgi"), ("asgi", "asgi"), ("uvicorn", "asgi")])
@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ((), [True, True]),
        (("--no-config-cache",), [False, True]),
        (("--no-server-shortcuts",), [True, False]),
        (("--no-config-cache", "--no-server-shortcuts"), [False, False]),
    ],
)
def test_the_cache_of_settings_and_the_shortcuts_are_turned_off_one_by_one(
    sandbox: Sandbox, worker_type: str, app: str, options: tuple[str, ...], facts: list[bool]
) -> None:
    sandbox.write("facts.py", FACTS)
    words = ("--worker-type", worker_type, *options)
    with PromgunProcess(*words, app=f"facts:{app}", sandbox=sandbox, config=TELL_WORKER, workers=1) as server:
        is_cached, is_replaced = json.loads(send(server.address).text)
    # uvicorn does not ask for Gunicorn's settings while it serves.
    assert [is_cached, is_replaced] == [facts[0] and worker_type != "uvicorn", facts[1]]
