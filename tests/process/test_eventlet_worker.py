"""What Gunicorn's last eventlet worker did, done by promgun's own under a real master and real sockets."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.sockets import connections_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.seam, pytest.mark.unmeasured("its clients time what the worker does")]

APPS = Path(__file__).parents[1] / "apps"
WORKER = "promgun.workers._eventlet_server.EventletWorker"
DEADLINE = 60.0
LISTENING = re.compile(r"Listening at: (\S+) ")
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Server:
    """A running ``gunicorn`` master; ``log`` is its error log, ``master`` its process."""

    def __init__(self, master: subprocess.Popen[bytes], log: Path) -> None:
        self.master = master
        self.log = log
        self.port = 0
        self.tls: ssl.SSLContext | None = None

    @property
    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def addresses(self) -> list[str]:
        """Read back where it listens: ``http://127.0.0.1:port`` or ``unix:path``."""
        found = LISTENING.search(self.text)
        return found[1].split(",") if found else []

    def workers(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.master.pid).children()]

    def said(self, words: str) -> None:
        until(lambda: words in self.text, words)

    def connect(self, *, tls: bool = True) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        return self.tls.wrap_socket(sock) if self.tls and tls else sock

    def get(self, path: str = "/") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        connection.sock = self.connect()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def send(self, number: signal.Signals) -> None:
        self.master.send_signal(number)

    def ended(self, seconds: float = DEADLINE) -> float:
        """Wait for the master's end and return how many seconds that took."""
        begun = time.monotonic()
        assert self.master.wait(seconds) == 0, self.text
        return time.monotonic() - begun


@contextmanager
def serve(
    folder: Path, *options: str, bind: str = "127.0.0.1:0", warnings: str = "error", **env: str
) -> Iterator[Server]:
    """Run gunicorn with our worker; whatever happens, no process of its group outlives the block."""
    log = folder / "error.log"
    command = [sys.executable, "-W", warnings, "-m", "gunicorn", "--worker-class", WORKER]
    command += ["--no-control-socket", "--log-file", str(log), "--chdir", str(APPS)]
    command += ["--bind", bind] if bind else []
    with (folder / "stderr").open("wb") as stderr:
        master = subprocess.Popen(
            [*command, *options, "eventlet_app:app"],
            stdout=stderr,
            stderr=stderr,
            env={**os.environ, **env},
            start_new_session=True,
        )
    try:
        server = Server(master, log)
        until(lambda: "Using worker" in server.text or master.poll() is not None, "listening")
        assert master.poll() is None, server.text + (folder / "stderr").read_text()
        server.port = int((server.addresses() or [bind])[0].rpartition(":")[2])
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(master.pid, signal.SIGKILL)
        master.wait()


def polled(pid: int) -> set[str]:
    """Find the inodes a process waits for with epoll."""
    inodes: set[str] = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            inodes.update(re.findall(r"^tfd:.* ino:(\w+)", info.read_text(), re.MULTILINE))
    return inodes


def refused(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def answer(sock: socket.socket) -> tuple[HTTPResponse, bytes]:
    response = HTTPResponse(sock)
    response.begin()
    return response, response.read()


def closed(sock: socket.socket) -> bool:
    with suppress(ConnectionResetError):
        return sock.recv(1) == b""
    return True


@contextmanager
def in_flight(server: Server, path: str, count: int = 1) -> Iterator[list[tuple[int, bytes]]]:
    """Have ``count`` requests under way; the list holds the answers once the block has ended."""
    answers: list[tuple[int, bytes]] = []

    def fetch() -> None:
        with suppress(HTTPException, OSError):
            answers.append(server.get(path))

    threads = [threading.Thread(target=fetch, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    until(lambda: server.text.count("sleeping") == count, "requests in the application")
    yield answers
    for thread in threads:
        thread.join(DEADLINE)


def established(server: Server) -> int:
    """Count the connections that the workers hold."""
    return sum(
        connection.status == psutil.CONN_ESTABLISHED for pid in server.workers() for connection in connections_of(pid)
    )


# Cooperation: patched in the worker only, a hub of its own


def test_the_master_stays_unpatched_and_the_application_loads_patched(tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text(
        "def pre_fork(server, worker):\n"
        "    from eventlet import patcher\n"
        "    patched = [name for name in ('os', 'socket', 'thread') if patcher.is_monkey_patched(name)]\n"
        "    server.log.info('patched before the fork: %s', patched)\n"
    )
    with serve(tmp_path, "--config", str(config)) as server:
        assert server.get("/patched") == (200, b"True")
        server.said("patched before the fork: []")


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
def test_forty_sleeping_requests_take_the_time_of_one(tmp_path: Path, preload: list[str]) -> None:
    with serve(tmp_path, *preload) as server, ThreadPoolExecutor(40) as pool:
        server.get()
        begun = time.monotonic()
        answers = list(pool.map(server.get, ["/sleep?seconds=0.5"] * 40))
        assert time.monotonic() - begun < 15  # one after the other they take 20
    assert [status for status, _ in answers] == [200] * 40


def test_each_worker_has_its_own_hub_when_the_master_had_one(tmp_path: Path) -> None:
    with serve(tmp_path, "--preload", "--workers=2", USE_HUB_AT_IMPORT="1") as server:
        until(lambda: len({server.get()[1] for _ in range(5)}) == 2, "both workers answering")
        # Each worker waits for its own wakeup pipe: with one hub for both, each would wait for both pipes.
        first, second = server.workers()
        until(lambda: polled(first) - polled(second) and polled(second) - polled(first), "two hubs")


# HTTP


def test_http_11_keeps_the_connection_until_it_is_idle_for_the_keepalive_time(tmp_path: Path) -> None:
    with serve(tmp_path, "--keep-alive=1") as server, server.connect() as sock:
        for _ in range(3):
            sock.sendall(GET)
            assert answer(sock)[0].status == 200
        begun = time.monotonic()
        assert closed(sock)
        assert 0.5 < time.monotonic() - begun < 30  # 75 s is how long a client is left at most


def test_a_default_timeout_of_the_application_is_not_the_clients(tmp_path: Path) -> None:
    with serve(tmp_path, DEFAULT_TIMEOUT="0.1") as server, server.connect() as sock:
        for pause in (0, 0.5):
            time.sleep(pause)
            sock.sendall(GET)
            assert answer(sock)[0].status == 200


def test_without_keepalive_each_answer_ends_its_connection(tmp_path: Path) -> None:
    with serve(tmp_path, "--keep-alive=0") as server, server.connect() as sock:
        sock.sendall(GET)
        assert answer(sock)[0].getheader("Connection") == "close"
        assert closed(sock)


def test_http_10_closes_unless_asked_to_keep_the_connection(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        with server.connect() as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert answer(sock)[0].status == 200
            assert closed(sock)
        with server.connect() as sock:
            for _ in range(2):
                sock.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert answer(sock)[0].getheader("Connection") == "keep-alive"


def test_pipelined_requests_and_a_chunked_upload_are_answered_in_order(tmp_path: Path) -> None:
    upload = b"POST /upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    with serve(tmp_path) as server, server.connect() as sock:
        sock.sendall(upload + b"GET /patched HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: sock.recv(4096), b""))
    answers = received.split(b"HTTP/1.1 200 OK")[1:]
    assert [part.partition(b"\r\n\r\n")[2] for part in answers] == [b"5", b"True"]


def test_an_application_that_answers_on_the_socket_itself_is_left_alone(tmp_path: Path) -> None:
    with serve(tmp_path) as server, server.connect() as sock:
        sock.sendall(GET.replace(b"/ ", b"/handled "))
        assert answer(sock)[1] == b"mine"
        assert closed(sock)
        assert "Error" not in server.text


# sendfile


def test_sendfile_is_exact_and_a_slow_reader_delays_nobody(tmp_path: Path) -> None:
    content = os.urandom(5 << 20)
    (tmp_path / "data").write_bytes(content)
    path = f"/file?path={tmp_path}/data&offset=777&length={len(content) - 777}"
    with serve(tmp_path) as server, server.connect() as slow:
        slow.sendall(GET.replace(b"/ ", f"{path} ".encode()))
        assert slow.recv(1, socket.MSG_PEEK) == b"H"
        assert server.get(path) == (200, content[777:])
        assert answer(slow)[1] == content[777:]


def test_a_file_that_sendfile_refuses_is_read_instead(tmp_path: Path) -> None:
    with (
        Path("/proc/self/maps").open("rb") as file,
        socket.socket() as out,
        pytest.raises(OSError) as refused,
    ):
        os.sendfile(out.fileno(), file.fileno(), 0, 100)
    assert refused.value.errno == errno.EINVAL
    with serve(tmp_path) as server:
        status, body = server.get("/file?path=/proc/self/maps&length=500")
        assert (status, len(body)) == (200, 500)
        assert "Error" not in server.text


# Listeners


def test_several_listeners_one_of_them_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with serve(tmp_path, f"--bind=unix:{path}", "--bind=127.0.0.1:0") as server:
        first, unix, second = server.addresses()
        assert unix == f"unix:{path}"
        for address in (first, second):
            server.port = int(address.rpartition(":")[2])
            assert server.get()[0] == 200
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(GET)
            assert answer(sock)[0].status == 200
        server.send(signal.SIGTERM)
        server.ended()
    assert not path.exists()


def test_reuse_port_gives_each_worker_a_listener_of_its_own(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{reserved.getsockname()[1]}"
        with serve(tmp_path, "--reuse-port", "--workers=2", bind=bind) as server:

            def answering() -> set[bytes]:
                with suppress(ConnectionRefusedError):
                    return {server.get()[1] for _ in range(8)}
                return set()

            until(lambda: len(answering()) == 2, "both workers answering")


# Limits


def test_worker_connections_bounds_the_clients_served_at_once(tmp_path: Path) -> None:
    options = ["--worker-connections=2", "--bind=127.0.0.1:0", "--keep-alive=30"]
    with serve(tmp_path, *options) as server, ExitStack() as stack:
        one, two, three = (stack.enter_context(server.connect()) for _ in range(3))
        for sock in (one, two):
            sock.sendall(GET)
            assert answer(sock)[0].status == 200
        three.sendall(GET)
        three.settimeout(0.5)
        with pytest.raises(TimeoutError):
            three.recv(1)
        one.close()
        three.settimeout(DEADLINE)
        assert answer(three)[0].status == 200


def test_a_full_worker_leaves_clients_to_the_other_one(tmp_path: Path) -> None:
    options = ["--worker-connections=1", "--workers=2", "--keep-alive=30"]
    with serve(tmp_path, *options) as server, server.connect() as one, server.connect() as two:
        pids = set()
        for sock in (one, two):
            sock.sendall(GET)
            pids.add(answer(sock)[1])
        assert len(pids) == 2


def test_max_requests_replaces_the_worker_without_losing_a_request(tmp_path: Path) -> None:
    with serve(tmp_path, "--max-requests=5") as server:
        answers = []

        def replaced() -> bool:
            answers.append(server.get())
            return len({pid for _, pid in answers}) >= 2

        until(replaced, "a second worker")
        assert {status for status, _ in answers} == {200}
        assert "Autorestarting worker" in server.text


def test_running_out_of_descriptors_is_survived(tmp_path: Path) -> None:
    with serve(tmp_path, "--keep-alive=30") as server:
        server.get()
        (worker,) = server.workers()
        used = max(int(number) for number in os.listdir(f"/proc/{worker}/fd"))
        psutil.Process(worker).rlimit(psutil.RLIMIT_NOFILE, (used + 4, used + 4))
        with ExitStack() as stack:
            for _ in range(12):
                stack.enter_context(server.connect())
            server.said("Cannot accept a client")
            before = sum(psutil.Process(worker).cpu_times()[:2])
            time.sleep(0.5)
            assert sum(psutil.Process(worker).cpu_times()[:2]) - before < 0.25
        assert server.get() == (200, str(worker).encode())


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_requests_in_flight_are_finished(tmp_path: Path, number: signal.Signals) -> None:
    with serve(tmp_path) as server, in_flight(server, "/sleep?seconds=1.5", count=3) as answers:
        (worker,) = server.workers()
        server.send(number)
        until(lambda: not psutil.pid_exists(worker), "the worker's end")
    assert [status for status, _ in answers] == [200] * 3
    assert "graceful timeout" not in server.text


def test_a_full_worker_finishes_its_client_and_takes_none_it_cannot_serve(tmp_path: Path) -> None:
    with serve(tmp_path, "--worker-connections=1") as server:
        with in_flight(server, "/sleep?seconds=1") as answers, server.connect() as waiting:
            waiting.sendall(GET)
            server.send(signal.SIGHUP)
            assert answer(waiting)[0].status == 200
        assert [status for status, _ in answers] == [200]


def test_after_a_reload_to_another_address_the_old_one_refuses(tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text("bind = '127.0.0.1:0'\n")
    with serve(tmp_path, "--config", str(config), bind="") as server:
        with in_flight(server, "/sleep?seconds=2") as answers:
            config.write_text(f"bind = 'unix:{tmp_path}/app.sock'\n")
            server.send(signal.SIGHUP)
            until(lambda: refused(server), "the old address refuses", 1.8)
        assert [status for status, _ in answers] == [200]


def test_idle_clients_do_not_hold_up_the_stop(tmp_path: Path) -> None:
    with serve(tmp_path, "--keep-alive=60") as server, server.connect() as idle, server.connect() as silent:
        idle.sendall(GET)
        answer(idle)
        server.send(signal.SIGTERM)
        assert server.ended() < 20
        assert closed(idle)
        assert closed(silent)


def test_a_busy_keep_alive_client_is_told_to_close_and_not_cut(tmp_path: Path) -> None:
    with serve(tmp_path, "--keep-alive=60") as server, server.connect() as sock:
        sock.sendall(GET)
        answer(sock)
        server.send(signal.SIGTERM)

        def told_to_close() -> bool:
            time.sleep(0.05)
            sock.sendall(GET)
            response, _ = answer(sock)
            assert response.status == 200
            return response.getheader("Connection") == "close"

        until(told_to_close, "Connection: close")
        assert server.ended() < 20


def test_an_upload_under_way_is_read_to_its_end(tmp_path: Path) -> None:
    with serve(tmp_path) as server, server.connect() as sock:
        sock.sendall(b"POST /upload HTTP/1.1\r\nHost: t\r\nContent-Length: 8\r\n\r\n1234")
        until(lambda: established(server) == 1, "accepted")
        server.send(signal.SIGTERM)
        until(lambda: refused(server), "stopping")
        time.sleep(1.5)  # longer than a client without a request is left
        sock.sendall(b"5678")
        assert answer(sock)[1] == b"8"


def test_after_graceful_timeout_the_rest_is_cut(tmp_path: Path) -> None:
    with serve(tmp_path, "--graceful-timeout=1") as server:
        with in_flight(server, "/sleep?seconds=30") as answers:
            server.send(signal.SIGHUP)
            server.said("Worker graceful timeout")
        assert answers == []
        assert server.get()[0] == 200


def test_a_draining_worker_goes_on_showing_signs_of_life(tmp_path: Path) -> None:
    with serve(tmp_path, "--timeout=4") as server:
        with in_flight(server, "/sleep?seconds=8") as answers:
            (worker,) = server.workers()
            os.kill(worker, signal.SIGTERM)  # during a reload the master waits and looks at no timeout
        assert [status for status, _ in answers] == [200]
        assert "WORKER TIMEOUT" not in server.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_waits_for_nobody(tmp_path: Path, number: signal.Signals) -> None:
    with serve(tmp_path) as server:
        with in_flight(server, "/sleep?seconds=30") as answers:
            server.send(number)
            assert server.ended() < 20
        assert answers == []
        assert "Traceback" not in server.text


def test_orphans_leave(tmp_path: Path) -> None:
    with serve(tmp_path, "--workers=2") as server:
        until(lambda: len({server.get()[1] for _ in range(5)}) == 2, "both workers answering")
        workers = server.workers()
        server.send(signal.SIGKILL)
        until(lambda: not any(map(alive, workers)), "the workers' end", 5)


def test_usr1_reopens_the_log_files(tmp_path: Path) -> None:
    access = tmp_path / "access.log"
    with serve(tmp_path, f"--access-logfile={access}") as server:
        server.get("/before")
        access.rename(tmp_path / "access.log.1")
        server.send(signal.SIGUSR1)
        until(access.exists, "a new file")

        def logged() -> bool:
            server.get("/after")
            return "/after" in access.read_text()

        until(logged, "a request in the new file")
        assert "/before" in (tmp_path / "access.log.1").read_text()


# TLS


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a self-signed certificate for this run: with its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", "/CN=test", "-days", "2", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


@contextmanager
def serve_tls(folder: Path, certificate: Path, *options: str) -> Iterator[Server]:
    with serve(folder, f"--certfile={certificate}", *options) as server:
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        server.tls.check_hostname = False
        server.tls.verify_mode = ssl.CERT_NONE
        yield server


HANDSHAKE = pytest.mark.parametrize("handshake", [[], ["--do-handshake-on-connect"]], ids=["lazy", "on connect"])


@HANDSHAKE
def test_tls_serves_beside_silent_and_foreign_clients(tmp_path: Path, certificate: Path, handshake: list[str]) -> None:
    (tmp_path / "data").write_bytes(content := os.urandom(1 << 20))
    options = [*handshake, "--keep-alive=30"]
    with serve_tls(tmp_path, certificate, *options) as server, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(server.connect(tls=False))
        foreign = stack.enter_context(server.connect(tls=False))
        foreign.sendall(b"GET / HTTP/1.0\r\n\r\n")
        server.said("Invalid request from ip=127.0.0.1")
        begun = time.monotonic()
        assert server.get(f"/file?path={tmp_path}/data&length={len(content)}") == (200, content)
        idle = stack.enter_context(server.connect())
        for _ in range(2):
            idle.sendall(GET)
            assert answer(idle)[0].status == 200
        assert time.monotonic() - begun < 20
        server.send(signal.SIGTERM)
        assert server.ended() < 20
        assert closed(idle)
    assert "Traceback" not in server.text + (tmp_path / "stderr").read_text()


def test_a_tls_handshake_is_given_up_after_the_timeout(tmp_path: Path, certificate: Path) -> None:
    with serve_tls(tmp_path, certificate, "--timeout=2") as server, server.connect(tls=False) as silent:
        assert closed(silent)
        assert server.get()[0] == 200


# The retirement message, and what importing does


@pytest.mark.parametrize("warnings", ["default", "error"])
def test_eventlets_retirement_is_told_once_by_the_master(tmp_path: Path, warnings: str) -> None:
    with serve(tmp_path, "--workers=2", warnings=warnings) as server:
        until(lambda: len({server.get()[1] for _ in range(5)}) == 2, "both workers answering")
        server.send(signal.SIGTERM)
        server.ended()
    told = [line for line in server.text.splitlines() if "retire" in line]
    assert len(told) == 1
    assert f"[{server.master.pid}]" in told[0]
    assert (tmp_path / "stderr").read_text() == ""


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def test_importing_the_module_patches_nothing() -> None:
    program = (
        "import socket, promgun.workers._eventlet_server\n"
        "from eventlet import patcher\n"
        "assert socket.socket.__module__ == 'socket'\n"
        "assert not patcher.already_patched\n"
    )
    done = run_python(program)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ("sys.modules['eventlet'] = None", "import of eventlet halted"),
        (
            "import eventlet; eventlet.__version__ = '0.39.1'",
            "0.40.3 or newer is needed, 0.39.1 is installed",
        ),
    ],
    ids=["absent", "too old"],
)
def test_without_a_usable_eventlet_only_the_import_fails(installed: str, message: str) -> None:
    done = run_python(
        "import sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import promgun.workers\n"
        f"{installed}\n"
        "try:\n"
        "    import promgun.workers._eventlet_server\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert message in done.stdout
