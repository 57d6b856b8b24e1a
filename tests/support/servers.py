"""Debian's Prometheus and Pushgateway on free ports, for as long as a ``with`` block runs."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from tests.support.http_client import Address, send
from tests.support.sandbox import Sandbox, wait_until

_LISTENING = re.compile(r'msg="Listening on" address=127\.0\.0\.1:(\d+)')
STOP_DEADLINE = 60.0


@contextmanager
def daemon(sandbox: Sandbox, name: str, *arguments: str) -> Iterator[Address]:
    """Run one of Prometheus' programs on a port that the system chooses; give the address once it is ready."""
    log = sandbox.directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [name, "--web.listen-address=127.0.0.1:0", *arguments],
            cwd=sandbox.directory,
            env=sandbox.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        port = int(wait_until(lambda: _LISTENING.search(log.read_text()), message=log.read_text)[1])
        address = ("127.0.0.1", port)
        wait_until(lambda: send(address, path="/-/ready").status == 200, message=log.read_text)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def pushgateway(sandbox: Sandbox) -> Iterator[Address]:
    """Run a Pushgateway that forgets everything at its end."""
    with daemon(sandbox, "prometheus-pushgateway", "--persistence.file=") as address:
        yield address


class Prometheus:
    """Questions to a running Prometheus."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def get(self, path: str) -> Any:
        """Return what the HTTP API says under ``/api/v1``."""
        answer = json.loads(send(self.address, path=f"/api/v1/{path}").text)
        assert answer["status"] == "success", answer
        return answer["data"]

    def vector(self, query: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of an instant query by these labels."""
        result = self.get(f"query?query={quote(query)}")["result"]
        values = {tuple(one["metric"].get(label, "") for label in labels): float(one["value"][1]) for one in result}
        assert len(values) == len(result), f"{labels} do not tell apart {result}"
        return values

    def scalar(self, query: str) -> float | None:
        """Return the one value of an instant query, ``None`` where it has no answer."""
        return self.vector(query).get(())

    def firing(self) -> list[Mapping[str, Any]]:
        """Return the alerts that fire, with labels and annotations."""
        return [alert for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"]


@contextmanager
def prometheus(sandbox: Sandbox, config: str) -> Iterator[Prometheus]:
    """Run a Prometheus with that configuration, whose files lie in the sandbox."""
    sandbox.write("prometheus.yml", config)
    data = sandbox.directory / "data"
    arguments = ("--config.file=prometheus.yml", f"--storage.tsdb.path={data}")
    with daemon(sandbox, "prometheus", *arguments) as address:
        yield Prometheus(address)
