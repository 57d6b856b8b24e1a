"""How ``promgun metrics dump`` shows who asks, and what it says when that is refused."""

from __future__ import annotations

from pathlib import Path

import bcrypt
import pytest

from promgun.config.web_options import WebOptions
from promgun.errors import InstanceError, PromgunError, UsageError
from promgun.instances.credentials import Credentials, credentials
from promgun.instances.page_source import UrlSource, source_for
from tests.support.certificates import Authority
from tests.support.endpoint_server import Endpoint

needs_openssl = pytest.mark.needs("openssl")


def told(server: Endpoint, scheme: str, given: Credentials) -> str:
    """Ask, and return what is said, or the names of the families."""
    assert isinstance(server.address, tuple)
    host, port = server.address
    try:
        return " ".join(family.name for family in UrlSource(f"{scheme}://{host}:{port}", 10.0, given).families())
    except PromgunError as error:
        return str(error)


@needs_openssl
def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server_certificate, client = authority.sign("server"), authority.sign("client")
    (tmp_path / "web.yml").write_text(
        "tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem,"
        " client_auth_type: RequireAndVerifyClientCert}\n"
    )
    with Endpoint(web=WebOptions(web_config=str(tmp_path / "web.yml"))) as server:
        everything = credentials(ca_file=authority.cert, cert_file=client.cert, key_file=client.key)
        assert told(server, "https", everything) == "apples pears"
        assert "cannot be verified" in told(server, "https", Credentials())
        assert "with --ca-file" in told(server, "https", Credentials())
        assert "give --cert-file and --key-file" in told(server, "https", credentials(ca_file=authority.cert))
        assert "answered 400" in told(server, "http", Credentials())
    for wrong in (credentials(ca_file=tmp_path / "absent"), credentials(ca_file=server_certificate.key)):
        with pytest.raises(UsageError, match=r"--ca-file .* cannot be used"):
            wrong.context()
    with pytest.raises(UsageError, match=r"--cert-file .* cannot be used"):
        credentials(cert_file=client.cert, key_file=server_certificate.key).context()


def test_passwords_and_tokens(tmp_path: Path) -> None:
    (tmp_path / "right").write_text("a secret\nnot read\n")
    (tmp_path / "wrong").write_text("another\n")
    digest = bcrypt.hashpw(b"a secret", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{prom: {digest}}}\n")
    with Endpoint(web=WebOptions(web_config=str(tmp_path / "web.yml"))) as server:
        assert told(server, "http", credentials(user="prom", password="a secret")) == "apples pears"
        assert told(server, "http", credentials(user="prom", password_file=tmp_path / "right")) == "apples pears"
        assert "wants another password or token" in told(
            server, "http", credentials(user="prom", password_file=tmp_path / "wrong")
        )
        assert "wants a password or a token. Give --user NAME" in told(server, "http", Credentials())
        assert "plain HTTP: name it with http://" in told(server, "https", Credentials())
    with Endpoint(web=WebOptions(bearer_token_file=str(tmp_path / "wrong"))) as server:
        assert told(server, "http", credentials(bearer_token_file=tmp_path / "wrong")) == "apples pears"


def test_options_that_do_not_fit_together(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    refused = {
        "cannot be given together": {"user": "u", "bearer_token_file": tmp_path / "t"},
        "without --user": {"password_file": tmp_path / "t"},
        "which has no colon": {"user": "u:p"},
        "without --cert-file": {"key_file": tmp_path / "k"},
        "--password-file .*absent cannot be read: No such file": {"user": "u", "password_file": tmp_path / "absent"},
        "--bearer-token-file .* cannot be used: its first line is empty": {"bearer_token_file": tmp_path / "empty"},
    }
    for words, given in refused.items():
        with pytest.raises(UsageError, match=words):
            credentials(**given)  # type: ignore[arg-type]


def test_credentials_are_for_urls(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="are for --url"):
        source_for(None, tmp_path, None, credentials(user="u", password="p"))
    with pytest.raises(UsageError, match="--url may not have a user or password"):
        UrlSource("http://u:p@127.0.0.1:1").families()
    with pytest.raises(UsageError, match=r"are for TLS, but 127.0.0.1:1 is plain HTTP. Name it with https://"):
        UrlSource("127.0.0.1:1", credentials=credentials(ca_file=tmp_path / "ca.pem")).families()
    with pytest.raises(InstanceError):
        UrlSource("https://127.0.0.1:1").families()
    assert "a secret" not in repr(credentials(user="u", password="a secret"))
