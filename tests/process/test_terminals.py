"""A terminal is sent nothing that it would obey, whoever wrote it; a pipe or a file gets the bytes as they are."""

from __future__ import annotations

import ast
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from promgun.instances.registry import process_identity
from tests.support.harness import Sandbox
from tests.support.on_terminal import controls, on_terminal

#: Clears the screen twice, renames the window, hides what follows from the reader; all of it is valid UTF-8.
HOSTILE = "\x1b[2J\x9b2J\x1b]0;gone\x07\u202e\x7f\r"
ENTRY_TEXT = HOSTILE + "\npromgun: error: all is lost"
PAGE = f"""\
# HELP shop_sales_total Sales.
# TYPE shop_sales_total counter
shop_sales_total{{till="{HOSTILE}"}} 3.0
# HELP gunicorn_info What runs.
# TYPE gunicorn_info gauge
gunicorn_info{{worker_type="{HOSTILE}",version="1"}} 1.0
# HELP gunicorn_workers Workers.
# TYPE gunicorn_workers gauge
gunicorn_workers{{state="{HOSTILE}"}} 3.0
# HELP gunicorn_worker_exits_total Ends.
# TYPE gunicorn_worker_exits_total counter
gunicorn_worker_exits_total{{cause="{HOSTILE}"}} 3.0
# HELP gunicorn_up Up.
# TYPE gunicorn_up gauge
gunicorn_up 1.0
"""
PROMGUN = ("-m", "promgun")


class Answers(BaseHTTPRequestHandler):
    """The hostile page, and a hostile refusal of everything else."""

    def do_GET(self) -> None:
        """Answer."""
        if self.path.startswith("/metrics"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGE.encode())
        else:
            # The reason phrase is what the client reads as Latin-1: one byte a character.
            self.wfile.write(b"HTTP/1.0 418 \x1b[2J\x9b2J\x07\r\n\r\n")

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextmanager
def hostile_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def entries(sandbox: Sandbox, count: int = 1) -> Iterator[None]:
    """Have that many entries with hostile texts in the list: of this process, and of its parent."""
    for pid in (os.getpid(), os.getppid())[:count]:
        entry = {
            "name": f"shop-{pid}",
            "pid": pid,
            "started": 1.0,
            "application": ENTRY_TEXT,
            "worker_type": HOSTILE,
            "addresses": [HOSTILE],
            "metrics_addresses": [HOSTILE],
            "store": f"/nonexistent/{pid}{HOSTILE}",
            "process": process_identity(pid),
        }
        (sandbox.runtime / f"{pid}.json").write_text(json.dumps(entry))
    yield
    for path in sandbox.runtime.glob("*.json"):
        path.unlink()


@pytest.mark.parametrize("form", ["text", "openmetrics", "json", "table"])
def test_dump(sandbox: Sandbox, form: str) -> None:
    with hostile_server() as url:
        shown = on_terminal(sandbox, *PROMGUN, "metrics", "dump", "--url", url, "--format", form)
        piped = sandbox.run(*PROMGUN, "metrics", "dump", "--url", url, "--format", form)
        path = sandbox.directory / "page"
        filed = sandbox.run(*PROMGUN, "metrics", "dump", "--url", url, "--format", form, "--output", str(path))
    assert controls(shown) == []
    assert "shop_sales" in shown
    assert ("\\u009b" if form == "json" else "\\x9b") in shown
    assert piped.returncode == filed.returncode == 0
    assert path.read_text() == piped.stdout
    if form == "json":
        assert json.loads(shown) == json.loads(piped.stdout)
        assert "\x9b" in piped.stdout, "as it is"
    elif form != "table":
        assert HOSTILE.rstrip("\r") in piped.stdout


def test_reason_phrase(sandbox: Sandbox) -> None:
    with hostile_server() as url:
        shown = on_terminal(sandbox, *PROMGUN, "metrics", "dump", "--url", f"{url}/other")
        piped = sandbox.run(*PROMGUN, "metrics", "dump", "--url", f"{url}/other")
    assert controls(shown) == []
    assert "answered 418 \\x1b[2J\\x9b2J\\x07" in shown
    assert "\x1b[2J\x9b" in piped.stderr


@pytest.mark.parametrize("arguments", [("ps",), ("ps", "--format", "json"), ("ps", "--requests")])
def test_ps(sandbox: Sandbox, arguments: tuple[str, ...]) -> None:
    with entries(sandbox):
        shown = on_terminal(sandbox, *PROMGUN, *arguments)
    assert controls(shown) == []
    assert "--requests" in arguments or f"shop-{os.getpid()}" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("arguments", [("metrics", "dump"), ("metrics", "top", "--once")])
def test_error_that_lists_entries_is_one_line(sandbox: Sandbox, arguments: tuple[str, ...]) -> None:
    with entries(sandbox, 2):
        shown = on_terminal(sandbox, *PROMGUN, *arguments)
    assert controls(shown) == []
    assert "2 instances are running" in shown
    assert len(shown.splitlines()) == 1, shown


def test_top(sandbox: Sandbox) -> None:
    with hostile_server() as url:
        shown = on_terminal(sandbox, *PROMGUN, "metrics", "top", "--once", "--interval", "0.2", "--url", url)
    assert controls(shown) == []
    assert "exits" in shown
    assert "\\x1b[2J\\x9b2J" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE,),
        ("run", "--workers", HOSTILE, "a:b"),
        ("run", f"nosuch{HOSTILE}:app"),
        ("run", "--config", HOSTILE, "a:b"),
        ("run", "--print-config", "--name", HOSTILE, "promgun.demo:app"),
        ("metrics", "dump", "--dir", HOSTILE),
        ("metrics", "dump", "--instance", HOSTILE),
        ("metrics", "dump", "--url", f"unix:{HOSTILE}"),
        ("metrics", "serve", "--dir", HOSTILE, "--bind", HOSTILE),
        ("export", "scrape", "--target", HOSTILE),
        ("export", "rules", "--label", f"a={HOSTILE}"),
        ("completion", HOSTILE),
    ],
    ids=lambda arguments: " ".join(arguments).replace(HOSTILE, "…"),
)
def test_what_is_repeated(sandbox: Sandbox, arguments: tuple[str, ...]) -> None:
    shown = on_terminal(sandbox, *PROMGUN, *arguments)
    assert shown
    assert controls(shown) == []


# -- no other way out ------------------------------------------------------------------------------------------------

PACKAGE = Path(__file__).parents[2] / "promgun"
#: Where text leaves for a terminal, and why that is safe.
WAYS_OUT = {
    "cli/echo.py": "escapes what it is given",
    "cli/entry.py": "one constant line",
    "master/config_file.py": "the traceback of the user's own configuration file",
    "master/launch.py": "escapes what it is given",
    "terminal/tables.py": "writes into a string, its cells made printable",
    "terminal/top/screen.py": "its lines are made printable",
}
_WRITES = {"echo", "secho", "print", "Console"}
_STREAMS = {"sys.stdout", "sys.stderr"}
_STREAM_WRITES = {"write", "writelines"}


def ways_out(tree: ast.AST) -> list[str]:
    """Return the calls in a module that may write to a terminal."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called: Any = node.func
        name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
        owner = ast.unparse(called.value) if isinstance(called, ast.Attribute) else ""
        if (name in _WRITES and owner in {"", "click", "rich"}) or (
            name in _STREAM_WRITES and owner in {"sys.stdout", "sys.stderr"}
        ):
            found.append(f"{owner}.{name}" if owner else name)
    return found


def test_no_other_way_to_a_terminal() -> None:
    found = {
        str(path.relative_to(PACKAGE)): ways
        for path in PACKAGE.rglob("*.py")
        if (ways := ways_out(ast.parse(path.read_text())))
    }
    # ``echo`` of our own is called by that name from everywhere in cli/.
    others = {name: ways for name, ways in found.items() if name not in WAYS_OUT and set(ways) - {"echo"}}
    assert others == {}
    assert set(WAYS_OUT) <= set(found)
