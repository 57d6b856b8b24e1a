"""The harness is tested too: a harness that cannot fail proves nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import DEADLINE, GUNICORN, Page, PromgunProcess, Sandbox, is_alive, parse_address, wait_until
from tests.support.http_client import NO_ANSWER, Connection, NoAnswer, Request, load, send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.http_client import Address

SLEEP = "import time; time.sleep(60)"


def plain_gunicorn(*args: str, app: str = "promgun.demo:app", **options: str) -> PromgunProcess:
    """Return a plain Gunicorn, which needs nothing of promgun but the demo."""
    config = options.get("config", "")
    return PromgunProcess(*args, app=app, command=GUNICORN, metrics=None, config=config)


@contextmanager
def scripted_server(*answers: bytes) -> Iterator[Address]:
    """Serve one connection for each answer: read a request's head, write the bytes as they are, close."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        thread.join(10)


# -- waiting ------------------------------------------------------------------------------------------------


def test_wait_until_returns_what_the_predicate_said() -> None:
    answers = iter([None, 0, "", "here"])
    assert wait_until(lambda: next(answers)) == "here"


def test_wait_until_takes_an_operating_system_error_as_not_yet(tmp_path: Path) -> None:
    path = tmp_path / "late"
    threading.Timer(0.1, lambda: path.write_text("text")).start()
    assert wait_until(path.read_text) == "text"


def test_wait_until_fails_after_its_deadline_and_says_why() -> None:
    start = time.monotonic()
    with pytest.raises(AssertionError, match=r"not within 0.1 s: the moon \(last: 0\)"):
        wait_until(lambda: 0, deadline=0.1, message="the moon")
    assert time.monotonic() - start < 5


# -- the client ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
    ids=["length", "chunked", "until close", "no content"],
)
def test_client_reads_every_framing(answer: bytes, body: bytes) -> None:
    with scripted_server(answer) as address:
        assert send(address).body == body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na",
    ],
)
def test_client_takes_no_half_answer_for_a_whole_one(answer: bytes) -> None:
    with scripted_server(answer) as address, pytest.raises(NoAnswer):
        send(address)


def test_load_counts_what_got_no_answer() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with scripted_server(whole, b"", whole) as address:
        assert load(address, 3, concurrency=1) == Counter({200: 2, NO_ANSWER: 1})


def test_load_counts_refused_connections() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen, so nobody has the port
        assert load(unused.getsockname(), 3) == Counter({NO_ANSWER: 3})


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("keepalive", [True, False])
def test_load_against_a_server(*, version: str, keepalive: bool) -> None:
    requests = [Request("/fast"), Request("/status/404"), Request("/fail"), Request("/stream?chunks=3")] * 5
    with plain_gunicorn("--threads", "4") as server:
        statuses = load(server.address, requests, keepalive=keepalive, version=version)
        assert statuses == Counter({200: 10, 404: 5, 500: 5})


def test_connection_is_kept_alive() -> None:
    with plain_gunicorn("--threads", "2") as server, Connection(server.address) as connection:
        first = connection.request(Request("/fast"), keepalive=True)
        assert first.keeps_alive
        port = connection.socket.getsockname()
        assert connection.request(Request("/echo", "POST", body=b"12345"), keepalive=True).text == "5\n"
        assert connection.request(Request("/echo", "POST", chunks=[b"1", b"23"]), keepalive=True).text == "3\n"
        assert connection.socket.getsockname() == port


def test_client_speaks_to_unix_sockets(sandbox: Sandbox) -> None:
    path = sandbox.directory / "app.sock"
    with PromgunProcess(command=GUNICORN, metrics=None, bind=f"unix:{path}", sandbox=sandbox) as server:
        assert server.address == str(path)
        assert send(server.address, path="/fast").text == "fast\n"
        assert load(server.address, 5, path="/fast") == Counter({200: 5})


# -- pages --------------------------------------------------------------------------------------------------


def test_page_answers_questions() -> None:
    page = Page('# TYPE a_total counter\na_total{x="1",y="2"} 3\na_total{x="2",y="2"} 4\na_total{x="3",y="3"} 0\n')
    assert page.value("a_total", x=1) == 3
    assert page.value("a_total", x=9) is None
    assert page.sum("a_total", y=2) == 7
    assert page.by("x", "a_total") == {"1": 3, "2": 4}
    with pytest.raises(AssertionError, match="2 samples match"):
        page.value("a_total", y=2)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("https://localhost:1/metrics", ("localhost", 1)),
        ("http://[::1]:9164/metrics", ("::1", 9164)),
        ("unix:/run/a.sock", "/run/a.sock"),
    ],
)
def test_addresses_of_a_log_are_understood(url: str, address: Address) -> None:
    assert parse_address(url) == address


# -- processes ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which signals a process handles")
def test_server_is_ready_when_its_workers_hear_signals() -> None:
    config = "import time\ndef post_fork(server, worker): time.sleep(1)\n"
    with plain_gunicorn("--graceful-timeout", "60", config=config) as server:
        assert server.stop() == 0


def test_server_is_ready_and_stopped() -> None:
    with plain_gunicorn("--workers", "2") as server:
        assert send(server.address, path="/fast").status == 200
        workers = wait_until(lambda: server.workers() if len(server.workers()) == 2 else None)
        assert server.master_pid == server.process.pid
    assert server.process.returncode == 0
    assert not any(map(is_alive, workers))
    assert not server.sandbox.directory.exists()


def test_server_that_does_not_start_is_told() -> None:
    with pytest.raises(AssertionError, match="exit code 2 before it was ready"):
        plain_gunicorn("--no-such-option").__enter__()


def test_server_that_ends_badly_is_told() -> None:
    on_exit = "import os\ndef on_exit(server):\n    os._exit(9)\n"
    with pytest.raises(AssertionError, match="exit code 9"), plain_gunicorn(config=on_exit):
        pass


def test_failing_test_leaves_no_process() -> None:
    server = plain_gunicorn("--workers", "2")
    with pytest.raises(ZeroDivisionError), server:
        raise ZeroDivisionError
    assert not server.sandbox.processes()


def test_daemon_is_found_and_stopped() -> None:
    with plain_gunicorn("--daemon", "--enable-stdio-inheritance") as server:
        assert server.wait() == 0
        assert server.master_pid != server.process.pid
        assert send(server.address, path="/fast").status == 200
    assert not is_alive(server.master_pid)


def test_sandbox_tells_a_process_that_was_left_in_a_session_of_its_own() -> None:
    sandbox = Sandbox(patience=1)
    program = f"import subprocess, sys;subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)"
    sandbox.run("-c", program)
    (process,) = wait_until(sandbox.processes)
    with pytest.raises(AssertionError, match=f"left behind: .*{process.pid}"), sandbox:
        pass
    assert not is_alive(process.pid)


def test_sandbox_tells_a_socket_that_was_left() -> None:
    sandbox = Sandbox(patience=1)
    with (
        pytest.raises(AssertionError, match=r"left behind: .*left\.sock"),
        sandbox,
        socket.socket(socket.AF_UNIX) as one,
    ):
        one.bind(str(sandbox.directory / "left.sock"))


def test_sandbox_tells_a_store_that_was_made_and_left(sandbox: Sandbox) -> None:
    """Also one that its master never put in the list of runs. A test may still have a ``sitecustomize`` of its own."""
    place = Path("/dev/shm")  # noqa: S108 - where private stores are
    sandbox.write("sitecustomize.py", "import builtins\nbuiltins.place = 'shm'\n")
    unfinished = "import tempfile; print(tempfile.mkdtemp(prefix='.promgun-', dir='/dev/' + place))"
    sandbox.records_stores = True
    assert not sandbox.left_behind()
    made = Path(sandbox.run("-c", unfinished).stdout.strip())
    assert made.parent == place
    assert sandbox.left_behind() == [str(made)]
    finished = made.rename(made.with_name(made.name.removeprefix(".")))
    assert sandbox.left_behind() == [str(finished)]
    finished.rmdir()
    assert not sandbox.left_behind()


def test_surroundings_do_not_decide(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--no-such-option")
    monkeypatch.setenv("PROMGUN_WORKERS", "9")
    monkeypatch.setenv("PORT", "1")
    seen = sandbox.run("-c", "import os; print(*os.environ)").stdout.split()
    assert not {"GUNICORN_CMD_ARGS", "PROMGUN_WORKERS", "PORT"} & set(seen)
    assert {"PATH", "PROMGUN_RUNTIME_DIR"} <= set(seen)


# -- limits of a test ---------------------------------------------------------------------------------------


def run_pytest(
    tmp_path: Path,
    text: str,
    *,
    command: str = 'exec "$@"',
    program: tuple[str, ...] = ("-m", "pytest"),
    limit: int = 60,
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Run tests under this suite's conftest, in a process of its own that a shell starts; ``limit``: its seconds."""
    (tmp_path / "test_one.py").write_text(text)
    (tmp_path / "conftest.py").write_text(f"from tests import conftest\nconftest.TIME_LIMIT = {limit}\n")
    arguments = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-rfs", "-W", "ignore", str(tmp_path)]
    return subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, *program, *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE,
        check=False,
    )


LIMITED = """
import pytest, signal, time

def test_too_long():
    time.sleep(30)

@pytest.mark.time_limit(30)
def test_longer():
    time.sleep(1.5)

def test_hears():
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
"""
LACKING = """
import pytest

@pytest.mark.needs("no-such-program")
def test_program():
    pass

@pytest.mark.needs_root("fly")
def test_root():
    pass
"""


def test_a_test_may_take_its_time_and_no_more_and_hears_an_interrupt_in_the_background(tmp_path: Path) -> None:
    """A shell without job control has a command with ``&`` ignore SIGINT."""
    ended = run_pytest(tmp_path, LIMITED, limit=1, command="trap '' INT; exec \"$@\"")
    assert "TimeoutError: the test took more than 1 s" in ended.stdout
    assert "1 failed, 2 passed" in ended.stdout
    assert re.search("^FAILED .*::test_too_long", ended.stdout, re.MULTILINE)


@pytest.mark.parametrize(("ci", "outcome"), [("", "2 skipped"), ("true", "2 errors")])
def test_what_a_test_needs_is_there_or_it_is_skipped_except_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    somebody = "import os, sys; os.geteuid = lambda: 65534; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    ended = run_pytest(tmp_path, LACKING, CI=ci, program=("-c", somebody))
    assert outcome in ended.stdout
    assert "no-such-program is not installed" in ended.stdout
    assert "only root may fly" in ended.stdout


def test_kill_reaches_a_stopped_server() -> None:
    server = plain_gunicorn()

    def stop_and_fail() -> None:
        with server:
            server.send_signal(signal.SIGSTOP)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_and_fail()
    assert not server.sandbox.processes()
