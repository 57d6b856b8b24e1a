"""The places where promgun touches Gunicorn: a version that changes one fails here, by name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from gunicorn import arbiter as arbiter_module
from gunicorn.app.base import Application, BaseApplication
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import KNOWN_SETTINGS, Config, Setting
from gunicorn.glogging import Logger
from gunicorn.http import wsgi
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.wsgi import FileWrapper, Response
from gunicorn.sock import BaseSocket
from gunicorn.workers.base import Worker
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker
from gunicorn.workers.workertmp import WorkerTmp

from promgun.master.application import ArbiterSeam, PromgunApplication
from promgun.master.arbiter import PrometheusArbiter
from promgun.metrics.label_values import MasterSignal
from promgun.workers._gunicorn_shortcuts import SHORTCUTS, may_pause

pytestmark = pytest.mark.seam

#: Lines of the functions that workers/_gunicorn_shortcuts.py replaces.
SHORTENED = {
    "http_date": (
        "timestamp = time.time()",
        "email.utils.formatdate(timestamp, localtime=False, usegmt=True)",
    ),
    "unquote_to_wsgi_str": ("return urllib.parse.unquote_to_bytes(string).decode('latin-1')",),
    "__init__": (
        'errorlog = logging.getLogger("gunicorn.error")',
        'if cfg.errorlog == "-":\n            self.streams.append(sys.stderr)\n            handlers = handlers[1:]',
        'if hasattr(h, "stream"):\n                self.streams.append(h.stream)',
    ),
    "wait_for_data": (
        "if self.data_ready:\n            return True",
        "sel.register(self.sock, selectors.EVENT_READ)",
        "events = sel.select(timeout=timeout)",
        "except (OSError, ValueError):",
    ),
    "accept": (
        "client, addr = listener.accept()\n        client.setblocking(1)\n        util.close_on_exec(client)\n",
        "self.handle(listener, client, addr)",
    ),
}


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("owner", "method", "expected"),
    [
        (Arbiter, "__init__", ["self", "app"]),
        (Arbiter, "start", ["self"]),
        (Arbiter, "run", ["self"]),
        (Arbiter, "stop", ["self", "graceful"]),
        (Arbiter, "halt", ["self", "reason", "exit_status"]),
        (Arbiter, "reload", ["self"]),
        (Arbiter, "reexec", ["self"]),
        (Arbiter, "spawn_worker", ["self"]),
        (Arbiter, "manage_workers", ["self"]),
        (Arbiter, "reap_workers", ["self"]),
        (Arbiter, "murder_workers", ["self"]),
        (Arbiter, "wait_for_signals", ["self", "timeout"]),
        (Arbiter, "kill_worker", ["self", "pid", "sig"]),
        (Worker, "__init__", ["self", "age", "ppid", "sockets", "app", "timeout", "cfg", "log"]),
        (Worker, "init_process", ["self"]),
        (Worker, "init_signals", ["self"]),
        (Worker, "load_wsgi", ["self"]),
        (Worker, "notify", ["self"]),
        (Worker, "handle_exit", ["self", "sig", "frame"]),
        (Worker, "handle_quit", ["self", "sig", "frame"]),
        (Worker, "handle_abort", ["self", "sig", "frame"]),
        (Worker, "run", ["self"]),
        (Worker, "handle_error", ["self", "req", "client", "addr", "exc"]),
        (SyncWorker, "wait", ["self", "timeout"]),
        (SyncWorker, "handle", ["self", "listener", "client", "addr"]),
        (SyncWorker, "handle_request", ["self", "listener", "req", "client", "addr"]),
        (AsyncWorker, "handle", ["self", "listener", "client", "addr"]),
        (AsyncWorker, "handle_request", ["self", "listener_name", "req", "sock", "addr"]),
        (AsyncWorker, "handle_http2_request", ["self", "listener_name", "req", "sock", "addr", "h2_conn"]),
        (ThreadWorker, "handle", ["self", "conn"]),
        (ThreadWorker, "enqueue_req", ["self", "conn"]),
        (ThreadWorker, "handle_request", ["self", "req", "conn"]),
        (ThreadWorker, "handle_http2_request", ["self", "req", "conn", "h2_conn"]),
        (Response, "close", ["self"]),
        (Response, "start_response", ["self", "status", "headers", "exc_info"]),
        (BaseApplication, "run", ["self"]),
        (BaseApplication, "reload", ["self"]),
        (BaseApplication, "do_load_config", ["self"]),
        (BaseApplication, "load_default_config", ["self"]),
        (BaseApplication, "load_config", ["self"]),
        (Application, "get_config_from_filename", ["self", "filename"]),
        (Application, "load_config_from_module_name_or_filename", ["self", "location"]),
        (WSGIApplication, "init", ["self", "parser", "opts", "args"]),
        (WSGIApplication, "load", ["self"]),
    ],
)
def test_signatures(owner: type, method: str, expected: list[str]) -> None:
    assert parameters(getattr(owner, method)) == expected


def test_the_arbiter_finds_handlers_by_name_and_has_those_that_are_counted() -> None:
    assert {Arbiter.SIG_NAMES[number] for number in Arbiter.SIGNALS} == set(MasterSignal)
    for name in MasterSignal:
        assert callable(getattr(Arbiter, f"handle_{name}"))
        assert getattr(PrometheusArbiter, f"handle_{name}") is not getattr(Arbiter, f"handle_{name}")


def test_the_signal_machinery_is_left_alone() -> None:
    for name in ("handle_chld", "signal", "signal_chld", "wakeup", "init_signals"):
        assert getattr(PrometheusArbiter, name) is getattr(Arbiter, name)


def test_the_arbiter_waits_through_its_module_s_os() -> None:
    assert "os.waitpid(-1, os.WNOHANG)" in inspect.getsource(Arbiter.reap_workers)
    assert arbiter_module.os is __import__("os")


def test_our_application_stands_between_application_and_base() -> None:
    order = PromgunApplication.__mro__
    assert order.index(Application) < order.index(ArbiterSeam) < order.index(BaseApplication)
    assert "Arbiter(self).run()" in inspect.getsource(BaseApplication.run)
    assert "super().run()" in inspect.getsource(Application.run)


def test_settings_join_the_table_when_they_are_declared() -> None:
    names = {setting.name for setting in KNOWN_SETTINGS}
    assert {"metrics_bind", "metrics_server", "metrics_dir", "stack_dump_at", "cgroup_dir"} <= names
    assert Config().metrics_bind == ["127.0.0.1:9164"]
    assert inspect.isclass(Setting)


def test_a_setting_is_looked_up_anew_each_time_unless_the_worker_caches_it() -> None:
    # What workers/_config_cache.py stands on; once Gunicorn keeps values itself, that module can go.
    assert "self.settings[name].get()" in inspect.getsource(Config.__getattr__)
    assert list(inspect.signature(Config.set).parameters) == ["self", "name", "value"]
    cfg = Config()
    assert "timeout" not in vars(cfg)
    assert "timeout" in cfg.settings


@pytest.mark.parametrize("name", [shortcut.name for shortcut in SHORTCUTS])
def test_a_shortcut_is_for_this_function_of_gunicorn(name: str) -> None:
    # What workers/_gunicorn_shortcuts.py stands on: compare the two functions, then mend the shortcut or let it go.
    shortcut = next(shortcut for shortcut in SHORTCUTS if shortcut.name == name)
    assert shortcut.applies
    source = inspect.getsource(getattr(shortcut.owner, name))
    for line in SHORTENED[name]:
        assert line in source


def test_the_arbiter_asks_the_configuration_for_the_class_and_lists_its_settings() -> None:
    # What master/instrumented_config.py stands on.
    assert "self.settings['worker_class'].get()" in inspect.getsource(vars(Config)["worker_class"].fget)
    source = inspect.getsource(Arbiter.setup)
    assert "self.worker_class = self.cfg.worker_class" in source
    assert "self.cfg.settings.items()" in source


def test_the_logger_writes_to_its_error_log() -> None:
    # What metrics/log_counter.py stands on.
    source = inspect.getsource(Logger)
    assert 'self.error_log = logging.getLogger("gunicorn.error")' in source
    assert "self.loglevel = " in source
    for name in ("critical", "error", "exception", "warning", "info", "debug"):
        assert f"self.error_log.{name}(" in inspect.getsource(getattr(Logger, name))


def test_a_response_knows_its_request_and_what_it_sent() -> None:
    source = inspect.getsource(Response.__init__)
    for attribute in ("self.req", "self.status = None", "self.headers_sent", "self.sent = 0", "self.response_length"):
        assert attribute in source
    assert "self.status_code" in inspect.getsource(Response.start_response)


@pytest.mark.parametrize("worker", [SyncWorker, AsyncWorker, ThreadWorker])
def test_workers_close_the_response_and_give_start_response_away_bound(worker: Any) -> None:
    source = inspect.getsource(worker.handle_request)
    assert "self.wsgi(environ, resp.start_response)" in source
    assert "resp.close()" in source
    assert "self.nr += 1" in source


def test_the_gevent_worker_drops_two_exceptions() -> None:
    ggevent = pytest.importorskip("gunicorn.workers.ggevent")
    lines = [line.strip() for line in inspect.getsource(ggevent.GeventWorker.handle_request).splitlines()]
    assert lines[1:] == [
        "try:",
        "super().handle_request(listener_name, req, sock, addr)",
        "except gevent.GreenletExit:",
        "pass",
        "except SystemExit:",
        "pass",
    ]


def test_an_application_finds_the_client_s_socket() -> None:
    assert '"gunicorn.socket": sock,' in inspect.getsource(wsgi.default_environ)


def test_bodies_are_read_through_a_reader() -> None:
    assert "reader" in parameters(Body.__init__)
    assert "self.reader.read(" in inspect.getsource(Body)
    assert "length" in parameters(LengthReader.__init__)
    assert hasattr(FileWrapper, "__getitem__")


def test_the_new_master_is_executed_from_the_configuration_s_environment() -> None:
    source = inspect.getsource(Arbiter.reexec)
    assert "self.cfg.env_orig.copy()" in source
    assert "self.START_CTX['args']" in source
    assert "GUNICORN_PID" in source


def test_a_worker_is_made_before_its_hook_and_forked_after_it() -> None:
    # What workers/_fork_signals.py stands on: it guards the hook when the worker is made.
    source = inspect.getsource(Arbiter.spawn_worker)
    places = [source.index(part) for part in ("self.worker_class(", "self.cfg.pre_fork(self, worker)", "os.fork()")]
    assert places == sorted(places)


@pytest.mark.parametrize("worker_class", [SyncWorker, ThreadWorker])
def test_a_heartbeat_is_one_touch_of_a_file_and_a_listener_hands_on_all_else(worker_class: Any) -> None:
    # What may_pause and remember_name stand on.
    assert worker_class.notify is Worker.notify
    assert "os.utime(self._tmp.fileno(), (new_time, new_time))" in inspect.getsource(WorkerTmp.notify)
    assert "os.fstat(self._tmp.fileno()).st_mtime" in inspect.getsource(WorkerTmp.last_update)
    assert may_pause(worker_class.__new__(worker_class).notify)
    assert "return getattr(self.sock, name)" in inspect.getsource(BaseSocket.__getattr__)
    assert "getsockname" not in vars(BaseSocket)
