"""What can be told before the first fork is told then, in one line: addresses, certificates, folders, classes."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.harness import PROMGUN, PromgunProcess, Sandbox, wait_until
from tests.support.http_client import Request, load, send
from tests.support.refusals import APP_LOAD, CONFIGURATION, DEMO, FREE, USAGE, assert_one_line, fail, fail_each

METRICS = ("--metrics-bind", "127.0.0.1:0")


@pytest.fixture
def certificate(sandbox: Sandbox) -> tuple[Path, Path]:
    """Return the paths of a certificate and its key."""
    certificate, key = sandbox.directory / "cert.pem", sandbox.directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


# -- the application's address --


ADDRESSES: list[tuple[str, tuple[str, ...]]] = [
    ("127.0.0.1:99999", ("127.0.0.1:99999", "0", "65535", "--bind")),
    ("127.0.0.1:many", ("many", "port")),
    ("fd://many", ("many", "descriptor")),
    ("fd://99", ("99", "not open", "--bind")),
    ("unix:/no/such/folder/app.sock", ("unix:/no/such/folder/app.sock", "folder does not exist", "--bind")),
    (f"unix:{'long' * 30}", ("longlong", "107 bytes", "--bind")),
    ("unix:plain-file", ("unix:plain-file", "not a socket", "--bind")),
    ("unix:plain-file/app.sock", ("unix:plain-file/app.sock", "not a folder", "--bind")),
]


def test_address_that_cannot_be_served(sandbox: Sandbox) -> None:
    sandbox.write("plain-file", "")
    for config in ((), ("--reuse-port",)):
        commands = ((DEMO, "--bind", address, *METRICS, *config) for address, _ in ADDRESSES)
        each = fail_each(sandbox, *commands, code=CONFIGURATION)
        for ran, (_, words) in zip(each, ADDRESSES, strict=True):
            assert_one_line(ran, *words)


def test_address_in_a_variable(sandbox: Sandbox) -> None:
    ran = fail(sandbox, DEMO, *METRICS, env={"PORT": "many"}, code=CONFIGURATION)
    assert_one_line(ran, "many", "port")


def test_workers_in_the_variable_of_the_platforms(sandbox: Sandbox) -> None:
    ran = fail(sandbox, DEMO, *FREE, env={"WEB_CONCURRENCY": "many"}, code=USAGE)
    assert_one_line(ran, "WEB_CONCURRENCY", "many")


# -- certificates --


@pytest.mark.needs("openssl")
def test_certificates(sandbox: Sandbox, certificate: tuple[Path, Path]) -> None:
    good, key = map(str, certificate)
    garbage = str(sandbox.write("garbage.pem", "garbage\n"))
    refused = [
        (("--certfile", "/no/such.pem"), ("--certfile", "/no/such.pem", "does not exist")),
        (("--certfile", good, "--keyfile", "/no/such.pem"), ("--keyfile", "/no/such.pem", "does not exist")),
        (("--certfile", good, "--keyfile", key, "--ca-certs", "/no/such.pem"), ("--ca-certs", "/no/such.pem")),
        (("--keyfile", key), ("--keyfile", "--certfile")),
        (("--certfile", garbage, "--keyfile", key), (garbage, "certificate")),
        (("--certfile", good, "--keyfile", garbage), (garbage, "key")),
    ]
    each = fail_each(sandbox, *((DEMO, *FREE, *args) for args, _ in refused), code=CONFIGURATION)
    for ran, (_, words) in zip(each, refused, strict=True):
        assert_one_line(ran, *words)


@pytest.mark.needs("openssl")
def test_encrypted_key_is_left_to_the_hook_that_can_open_it(sandbox: Sandbox, certificate: tuple[Path, Path]) -> None:
    good, key = certificate
    locked = sandbox.directory / "locked.pem"
    command = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", str(key), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    sandbox.write(
        "gunicorn.conf.py",
        "import ssl\n"
        "def ssl_context(config, default):\n"
        "    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)\n"
        "    context.load_cert_chain(config.certfile, config.keyfile, password='secret')\n"
        "    return context\n",
    )
    with PromgunProcess("--certfile", str(good), "--keyfile", str(locked), sandbox=sandbox) as server:
        server.expect("gunicorn_up", 1)


# -- folders and classes --


def test_folder_for_heartbeats(sandbox: Sandbox) -> None:
    ran = fail(sandbox, DEMO, *FREE, "--worker-tmp-dir", "/no/such/folder", code=CONFIGURATION)
    assert_one_line(ran, "--worker-tmp-dir", "/no/such/folder")


def test_worker_class_that_is_none(sandbox: Sandbox) -> None:
    names = ("probe.app", "probe.CustomError", "promgun.errors.ExitCode")
    each = fail_each(sandbox, *((DEMO, "-k", name, *FREE) for name in names), code=CONFIGURATION)
    for ran, name in zip(each, names, strict=True):
        assert_one_line(ran, name, "worker class")


def test_worker_type_in_the_configuration_gets_a_whole_sentence(sandbox: Sandbox) -> None:
    sandbox.write("gunicorn.conf.py", "worker_class = 'gevnt'\n")
    assert_one_line(fail(sandbox, DEMO, *FREE, code=CONFIGURATION), "Did you mean 'gevent'?")


def test_worker_type_of_gunicorn_s_without_its_library(sandbox: Sandbox) -> None:
    ran = fail(sandbox, DEMO, "-k", "tornado", *FREE, code=CONFIGURATION)
    assert_one_line(ran, "'tornado' cannot be loaded", "ornado")


@pytest.mark.parametrize("name", ["gevent_pywsgi", "gunicorn.workers.ggevent.GeventPyWSGIWorker"])
def test_worker_class_that_serves_past_gunicorn_s_own_way(sandbox: Sandbox, name: str) -> None:
    requests = [
        Request("/ok"),
        Request("/status/404"),
        Request("/fail/ValueError"),
        Request("/stream/3/100"),
        Request("/echo", "POST", body=b"12345"),
    ]
    with PromgunProcess("-k", name, app="probe:app", sandbox=sandbox) as server:
        assert send(server.address, path="/ok").headers["content-length"]
        assert load(server.address, requests * 10) == {200: 30, 404: 10, 500: 10}
        server.expect("gunicorn_requests_total", 51)
        page = server.scrape()
        assert page.by("status", "gunicorn_requests_total") == {"200": 31, "404": 10, "500": 10}
        assert page.sum("gunicorn_failed_requests_total", error_type="ValueError") == 10
        assert page.sum("gunicorn_request_size_bytes_sum", method="POST") == 50
        assert page.sum("gunicorn_response_size_bytes_sum") > 10 * 300
        assert page.sum("gunicorn_worker_requests_in_progress") == 0
        assert page.sum("gunicorn_worker_requests_total") == 51


def test_logger_class_that_cannot_be_loaded(sandbox: Sandbox) -> None:
    ran = fail(sandbox, DEMO, *FREE, "--logger-class", "no_such_module.Logger", code=CONFIGURATION)
    assert_one_line(ran, "no_such_module.Logger")


def test_log_that_cannot_be_written(sandbox: Sandbox) -> None:
    ran = fail(sandbox, DEMO, *FREE, "--error-logfile", "/no/such/log", code=CONFIGURATION)
    assert_one_line(ran, "--error-logfile, /no/such/log", "No such file or directory")


def test_configuration_module_that_is_not_there(sandbox: Sandbox) -> None:
    ran = fail(sandbox, DEMO, *FREE, "-c", "python:no_such_module", code=CONFIGURATION)
    assert_one_line(ran, "python:no_such_module", "cannot be imported", "--config")


# -- applications that end the program --


@pytest.mark.parametrize("worker", [(), ("--preload",)], ids=["worker", "preload"])
@pytest.mark.parametrize(
    ("statement", "words"),
    [("sys.exit('DATABASE_URL is not set')", "DATABASE_URL is not set"), ("sys.exit(3)", "3"), ("sys.exit()", "exit")],
)
def test_application_that_ends_the_program(
    sandbox: Sandbox, statement: str, words: str, worker: tuple[str, ...]
) -> None:
    sandbox.write("ending.py", f"import sys\n{statement}\n")
    ran = fail(sandbox, "ending:app", *FREE, "--workers", "2", *worker, code=APP_LOAD)
    assert words in ran.stderr
    assert "ending.py" in ran.stderr
    assert ran.stderr.count("Booting worker") <= 2


@pytest.mark.parametrize("worker", [(), ("--preload",)], ids=["worker", "preload"])
def test_daemon_whose_application_cannot_be_loaded_says_so_in_its_log(
    sandbox: Sandbox, worker: tuple[str, ...]
) -> None:
    log = sandbox.directory / "error.log"
    ran = sandbox.run(*PROMGUN, "broken_import:app", *FREE, *worker, "--daemon", "--error-logfile", str(log))
    assert ran.returncode == 0
    wait_until(lambda: "No module named 'a_module_that_nobody_has'" in log.read_text(), message=log.read_text)
    wait_until(lambda: not sandbox.left_behind())


def test_signal_that_ends_a_worker_while_it_loads_is_not_the_application_s_doing(sandbox: Sandbox) -> None:
    sandbox.write(
        "once.py",
        "import os, signal, time\n"
        "if not os.path.exists('once'):\n    open('once', 'w').close()\n"
        "    os.kill(os.getpid(), signal.SIGABRT)\n    time.sleep(60)\n"
        "from promgun.demo import app\n",
    )
    with PromgunProcess(app="once:app", sandbox=sandbox) as server:
        assert load(server.address, 3, path="/fast") == {200: 3}
        assert server.scrape().sum("gunicorn_worker_spawns_total") == 2


def test_interrupt_that_a_module_raises_ends_its_worker_only(sandbox: Sandbox) -> None:
    """Gunicorn (25.3 to 27.0) has such a worker go on as a second master, which stops the others."""
    sandbox.write(
        "raising.py",
        "import os\nfrom promgun.demo import app\n"
        "if os.path.exists('raise'):\n    os.unlink('raise')\n    raise KeyboardInterrupt\n",
    )
    with PromgunProcess("-k", "sync", app="raising:app", workers=2, sandbox=sandbox) as server:
        before = server.workers()
        metrics = server.metrics_pid()
        sandbox.write("raise", "")
        server.send_signal(signal.SIGKILL, before[0])
        server.expect("gunicorn_worker_spawns_total", 4)
        wait_until(lambda: server.scrape().sum("gunicorn_workers", state="booted") == 2)
        assert before[1] in server.workers()
        assert server.metrics_pid() == metrics
        assert server.scrape().sum("gunicorn_worker_exits_total", cause="boot_error") == 1
        assert "starting another" not in server.log


# -- the same, when the configuration is read again --


def test_reload_that_would_stop_the_server_is_refused(sandbox: Sandbox) -> None:
    config = "bind = ['127.0.0.1:0'{}]\n"
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        PromgunProcess(sandbox=sandbox, bind=None, config=config.format("")) as server,
    ):
        before = server.workers()
        for bad in (
            config.format(", '127.0.0.1:many'"),
            config.format(", '127.0.0.1:99999'"),
            config.format(f", '127.0.0.1:{other.getsockname()[1]}'"),
            config.format(", 'unix:/no/such/folder/app.sock'"),
            config.format("") + "errorlog = '/no/such/log'\n",
            config.format("") + "worker_tmp_dir = '/no/such/folder'\n",
            config.format("") + "worker_class = 'probe.app'\n",
            config.format("") + "logger_class = 'no_such_module.Logger'\n",
            config.format("") + "certfile = '/no/such.pem'\n",
        ):
            sandbox.write("gunicorn.conf.py", bad)
            told = len(server.log)
            server.send_signal(signal.SIGHUP)
            wait_until(lambda told=told: "Reload refused" in server.log[told:], message=lambda: server.log)  # type: ignore[misc]
            assert send(server.address, path="/fast").status == 200
            assert server.workers() == before
        sandbox.write("gunicorn.conf.py", config.format(", '127.0.0.1:0'"))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: not set(before) & set(server.workers()))
        assert "Unhandled" not in server.log
