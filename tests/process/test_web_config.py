"""Servers whose endpoint is protected: started, scraped by a real Prometheus, reloaded, upgraded, refused."""

from __future__ import annotations

import os
import signal
import ssl
from contextlib import suppress
from pathlib import Path

import bcrypt
import pytest

from promgun.export.protection import ScrapeCredentials
from promgun.export.scrape import ScrapeOptions, scrape
from tests.support.certificates import Authority
from tests.support.forked import run_each
from tests.support.harness import DEMO, GUNICORN, PromgunProcess, Sandbox, wait_until
from tests.support.http_client import Address, Connection, Request, send
from tests.support.servers import prometheus

PASSWORD = "a secret"
MUTUAL = """\
tls_server_config:
  cert_file: server.pem
  key_file: server.key
  client_ca_file: ca.pem
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [prometheus.example]
"""


def users(password: str = PASSWORD) -> str:
    """Return the section with one user."""
    return f"basic_auth_users:\n  prometheus: {bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"


def listening(server: PromgunProcess) -> tuple[str, int]:
    """Return where the metrics are, which the harness cannot ask by itself."""
    wait_until(lambda: "Metrics at: " in server.log, message=lambda: server.log)
    address = server.metrics_address
    assert isinstance(address, tuple)
    return address


def status_over_tls(address: Address, context: ssl.SSLContext) -> int:
    """Ask for the metrics over TLS; 0 where nobody answers."""
    with suppress(OSError), Connection(address) as connection:
        plain = connection.socket
        connection.socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        connection._reader = connection.socket.makefile("rb")
        return connection.request(Request("/metrics")).status
    return 0


@pytest.mark.needs("prometheus", "openssl")
def test_prometheus_scrapes_over_mutual_tls_with_a_password(sandbox: Sandbox) -> None:
    authority = Authority(sandbox.directory)
    authority.sign("server")
    client = authority.sign("client", "DNS:prometheus.example")
    sandbox.write("web.yml", MUTUAL + users())
    sandbox.write("password", PASSWORD)
    server = PromgunProcess("--metrics-web-config", "web.yml", sandbox=sandbox, workers=2)
    server.start()
    try:
        host, port = listening(server)
        assert f"Metrics at: https://{host}:{port}/metrics" in server.log
        options = ScrapeOptions(
            job="shop",
            targets=(f"{host}:{port}",),
            interval="1s",
            credentials=ScrapeCredentials(
                ca_file="ca.pem",
                cert_file=client.cert.name,
                key_file=client.key.name,
                user="prometheus",
                password_file="password",
            ),
        )
        with prometheus(sandbox, scrape(options)) as asked:
            wait_until(lambda: asked.scalar('up{job="shop"}') == 1, message=lambda: str(asked.get("targets")))
            wait_until(lambda: asked.scalar('gunicorn_workers{job="shop",state="booted"}') == 2)
            # Another password, found without a restart: it is refused, is counted, and comes back.
            sandbox.write("web.yml", MUTUAL + users("another"))
            wait_until(lambda: asked.scalar('up{job="shop"}') == 0)
            sandbox.write("web.yml", MUTUAL + users())
            wait_until(lambda: asked.scalar('up{job="shop"}') == 1)
            refused = 'promgun_endpoint_refused_total{job="shop",reason="credentials"}'
            wait_until(lambda: (asked.scalar(refused) or 0) > 0)
            assert asked.scalar('promgun_web_config_reloads_total{job="shop",result="ok"}') == 2
        common = ("--ca-file", "ca.pem", "--user", "prometheus", "--password-file", "password")
        shown = ("--cert-file", client.cert.name, "--key-file", client.key.name)
        url = ("--url", f"https://{host}:{port}")
        dumped = sandbox.run("-m", "promgun", "metrics", "dump", *url, *common, *shown)
        assert dumped.returncode == 0, dumped.stderr
        assert "gunicorn_up 1.0" in dumped.stdout
        once = sandbox.run("-m", "promgun", "metrics", "top", "--once", "--interval", "0.2", *url, *common, *shown)
        assert "2 of 2" in once.stdout, once.stderr
        assert sandbox.run("-m", "promgun", "metrics", "dump", *url, *common).returncode == 5
        assert server.stop() == 0
    finally:
        server.process.kill()
        server.process.wait()


@pytest.mark.needs("openssl")
def test_reload_and_upgrade_go_on_protected(sandbox: Sandbox) -> None:
    context = ssl.create_default_context(cafile=str((authority := Authority(sandbox.directory)).cert))
    certificate = authority.sign("server")
    with PromgunProcess(sandbox=sandbox, config="", workers=1) as server:
        assert send(server.metrics_address, path="/metrics").status == 200
        settings = f"metrics_certfile = {certificate.cert.name!r}\nmetrics_keyfile = {certificate.key.name!r}\n"
        sandbox.write("gunicorn.conf.py", settings)
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: status_over_tls(server.metrics_address, context) == 200, message=lambda: server.log)
        assert "Metrics at: https://" in server.log
        # A reload that names what is not there is refused, and the endpoint stays as it is.
        sandbox.write("gunicorn.conf.py", settings.replace("server.pem", "absent.pem"))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: "Reload refused" in server.log)
        assert "absent.pem cannot be read" in server.log
        assert status_over_tls(server.metrics_address, context) == 200
        sandbox.write("gunicorn.conf.py", settings)
        old = server.master_pid
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: server.master_pid != old and server.metrics_pid())
        server.send_signal(signal.SIGTERM, old)
        assert server.wait() == 0
        wait_until(lambda: status_over_tls(server.metrics_address, context) == 200)
        sandbox.write("gunicorn.conf.py", "")
        server.send_signal(signal.SIGHUP)
        wait_until(server.scrape)


@pytest.mark.parametrize("check", [(), ("--check-config",)])
def test_what_cannot_be_used_is_refused_in_one_line(sandbox: Sandbox, check: tuple[str, ...]) -> None:
    sandbox.write("web.yml", "tls_server_confg: {}\n")
    sandbox.write("empty", "\n")
    refused = {
        ("--metrics-web-config", "web.yml"): "web.yml: unknown key 'tls_server_confg' in the file",
        ("--metrics-web-config", "absent.yml"): "absent.yml cannot be read: No such file or directory",
        ("--metrics-certfile", "empty"): "empty cannot be read as a certificate and its key",
        ("--metrics-bearer-token-file", "empty"): "empty holds no token",
        ("--metrics-keyfile", "empty"): "--metrics-keyfile was given without --metrics-certfile",
        ("--metrics-web-config", "web.yml", "--metrics-certfile", "empty"): "cannot be given together with",
    }
    common = ("run", DEMO, "--metrics-bind", "127.0.0.1:0", *check)
    each = run_each(sandbox, [(*common, *flags) for flags in refused])
    for done, words in zip(each, refused.values(), strict=True):
        assert done.returncode == 1, done
        assert words in done.stderr
        assert done.stderr.startswith("promgun: error: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="changes user")
def test_what_the_workers_user_cannot_read_is_refused_with_the_command_that_mends_it(sandbox: Sandbox) -> None:
    secret = Path(sandbox.directory, "token")
    secret.write_text("a-token\n")
    secret.chmod(0o600)
    folder: Path = secret.parent
    while folder != folder.parent:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
        folder = folder.parent
    flags = ("--user", "nobody", "--group", "nogroup", "--metrics-bearer-token-file", "token", "--check-config")
    done = sandbox.run("-m", "promgun", "run", DEMO, *flags)
    assert done.returncode == 1, done
    assert f"{secret} cannot be read: Permission denied" in done.stderr
    assert f"chgrp 65534 {secret} && chmod g+r {secret}" in done.stderr
    os.chown(secret, -1, 65534)
    secret.chmod(0o640)
    assert sandbox.run("-m", "promgun", "run", DEMO, *flags).returncode == 0


def test_plain_gunicorn_is_protected_by_variables(sandbox: Sandbox) -> None:
    sandbox.write("token", "a-token\n")
    sandbox.write("conf.py", "from promgun.hooks import when_ready\nworker_class = 'promgun.PrometheusWorker'\n")
    variables = {"PROMGUN_METRICS_BIND": f"unix:{sandbox.directory}/m.sock 127.0.0.1:0"}
    arguments = ("-c", "conf.py")
    with PromgunProcess(
        *arguments,
        command=GUNICORN,
        metrics=None,
        sandbox=sandbox,
        env={**variables, "PROMGUN_METRICS_BEARER_TOKEN_FILE": "token"},
    ) as server:
        (run,) = sandbox.runs()
        url = next(url for url in run["metrics_addresses"] if url.startswith("http://"))
        host, _, port = url.removeprefix("http://").removesuffix("/metrics").rpartition(":")
        address = (host, int(port))
        assert send(address, path="/metrics").status == 401
        token = [("Authorization", "Bearer a-token")]
        assert send(address, path="/metrics", headers=token).status == 200
        assert send(f"{sandbox.directory}/m.sock", path="/metrics").status == 200
    with PromgunProcess(
        *arguments,
        command=GUNICORN,
        metrics=None,
        sandbox=sandbox,
        env={**variables, "PROMGUN_METRICS_BEARER_TOKEN_FILE": "absent"},
    ) as server:
        assert "No metrics endpoint" in server.log
        assert "absent cannot be read" in server.log
