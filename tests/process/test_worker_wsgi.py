"""What hooks see in ``worker.wsgi``, and what they may put around it."""

from __future__ import annotations

import pytest

from tests.support.harness import PromgunProcess, Sandbox
from tests.support.http_client import send

pytestmark = pytest.mark.seam

#: Applications and middlewares are classes here, with attributes that a function would not have.
CONFIG = """
import probe

class Application:
    config = {"name": "own"}
    def __call__(self, environ, start_response):
        return probe.app(environ, start_response)

class Middleware:
    def __init__(self, application):
        self.application = application
    def __call__(self, environ, start_response):
        def own(status, headers, exc_info=None):
            return start_response(status, headers)
        return self.application(environ, own)

application = Application()
middleware = Middleware(application)
expected = application

def see(name, worker):
    print(f"saw {name} {worker.wsgi is expected}", flush=True)

def post_worker_init(worker):
    global expected
    worker.wsgi.config["seen"] = 1
    see("init", worker)
    expected = worker.wsgi = middleware
    worker.wsgi.config = application.config

def pre_request(worker, req):
    assert isinstance(worker.wsgi, Middleware) and worker.wsgi.config["seen"] == 1
    if req.path == "/status/201":
        # Even now.
        worker.wsgi = Middleware(worker.wsgi)
        worker.wsgi.config = application.config

def worker_int(worker):
    see("int", worker)

def worker_exit(server, worker):
    see("exit", worker)
"""
#: Each request is in one of these.
ENDS = (
    "gunicorn_requests_total",
    "gunicorn_requests_unanswered_total",
    "gunicorn_requests_lost_total",
    "gunicorn_websocket_connections_total",
)
APP = "import gunicorn_conf as conf\napp = conf.application\n"


@pytest.mark.parametrize("changed", [False, True])
def test_hooks_see_the_application_and_may_wrap_it(worker_type: str, changed: bool) -> None:  # noqa: FBT001 - a case
    with Sandbox() as sandbox:
        sandbox.write("gunicorn_conf.py", CONFIG)
        sandbox.write("own.py", APP)
        options = ("-k", worker_type, "-c", "python:gunicorn_conf")
        with PromgunProcess(*options, app="own:app", sandbox=sandbox, workers=1) as server:
            if changed:
                assert send(server.address, "GET", "/status/201").status == 201
            assert send(server.address, "GET", "/ok").status == 200
            assert send(server.address, "GET", "/fail/ValueError").status == 500
            assert send(server.address, "GET", "/stream/3/4").status == 200
            server.expect("gunicorn_requests_total", 4 if changed else 3)
            page = server.fresh()
            assert {name: page.sum(name) for name in ENDS} == {**dict.fromkeys(ENDS, 0), ENDS[0]: 4 if changed else 3}
            assert page.sum("gunicorn_worker_requests_in_progress") == 0
            assert page.by("error_type", "gunicorn_failed_requests_total") == {"ValueError": 1}
            assert page.sum("gunicorn_invalid_requests_total") == 0
            assert server.stop() == 0
            log = server.log
    assert "saw init True" in log
    if not changed:
        assert "saw exit True" in log
    traceback = log.partition("Error handling request")[2].partition("ValueError")[0]
    assert traceback.count("promgun/workers") <= 1


WRAPPING = """
from gunicorn.workers.sync import SyncWorker

class WrappingWorker(SyncWorker):
    def run(self):
        application = self.wsgi
        def wrapped(environ, start_response):
            return application(environ, lambda *given: start_response(*given))
        self.wsgi = wrapped
        super().run()
"""


def test_a_worker_class_may_wrap_the_application_as_it_begins_to_serve() -> None:
    with Sandbox() as sandbox:
        sandbox.write("wrapping.py", WRAPPING)
        options = ("-k", "wrapping.WrappingWorker")
        with PromgunProcess(*options, app="probe:app", sandbox=sandbox, workers=1) as server:
            assert send(server.address, "GET", "/ok").status == 200
            assert send(server.address, "GET", "/fail/ValueError").status == 500
            server.expect("gunicorn_requests_total", 2)
            page = server.fresh()
            assert {name: page.sum(name) for name in ENDS} == {**dict.fromkeys(ENDS, 0), ENDS[0]: 2}
            assert page.by("error_type", "gunicorn_failed_requests_total") == {"ValueError": 1}
