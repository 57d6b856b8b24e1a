"""exporter-toolkit's web configuration file: what is taken, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from promgun.config.web_config import RateLimit, TlsSettings, WebConfig, read_web_config
from promgun.config.web_options import WebOptions, web_options, web_options_from
from promgun.errors import ConfigurationError

HASH = "$2y$10$XVLVCqLFJUvLnsv2K3KHjuPSLP.mS9F4Oi1vU3VrmlhSxmOzcCqVq"


def read(folder: Path, text: str) -> WebConfig:
    (folder / "web.yml").write_text(text)
    return read_web_config(folder / "web.yml")


def test_an_empty_file_protects_nothing(tmp_path: Path) -> None:
    for text in ("", "# nothing\n", "{}", "tls_server_config:\nbasic_auth_users:\n"):
        assert read(tmp_path, text) == WebConfig()


@pytest.mark.seam
def test_a_whole_file(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        f"""
        tls_server_config:
          cert_file: server.pem
          key_file: /keys/server.key
          client_ca_file: ca.pem
          client_auth_type: RequireAndVerifyClientCert
          client_allowed_sans: [prometheus.example]
          min_version: TLS13
          max_version: TLS13
          cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
          prefer_server_cipher_suites: false
          curve_preferences: [X25519]
        http_server_config:
          http2: true
          headers: {{X-Frame-Options: DENY, Strict-Transport-Security: max-age=1}}
        basic_auth_users: {{prometheus: {HASH}}}
        rate_limit: {{interval: 1m30s500ms, burst: 7}}
        """,
    )
    assert config == WebConfig(
        tls=TlsSettings(
            cert_file=str(tmp_path / "server.pem"),
            key_file="/keys/server.key",
            client_ca_file=str(tmp_path / "ca.pem"),
            client_auth="required",
            client_allowed_sans=("prometheus.example",),
            min_version="TLS13",
            max_version="TLS13",
            ciphers=("ECDHE-RSA-AES128-GCM-SHA256",),
            prefer_server_ciphers=False,
            curve="X25519",
        ),
        users={"prometheus": HASH.encode()},
        headers=((b"X-Frame-Options", b"DENY"), (b"Strict-Transport-Security", b"max-age=1")),
        rate_limit=RateLimit(90.5, 7),
        asks_for_http2=True,
    )
    assert HASH not in repr(config)


TLS = "tls_server_config: {cert_file: a, key_file: b, %s}"
REFUSED = {
    "[]": "the file must be a mapping",
    "a: [": "while parsing",
    "a: 1\na: 2": "a key stands twice, in the mapping at line 1",
    "tls_server_confg: {}": "unknown key 'tls_server_confg' in the file",
    "tls_server_config: []": "tls_server_config must be a mapping",
    "tls_server_config: {cert_file: a}": "tls_server_config needs one of key_file and key",
    "tls_server_config: {key_file: a}": "tls_server_config needs one of cert_file and cert",
    "tls_server_config: {cert_file: a, cert: b, key: c}": "tls_server_config needs one of cert_file and cert",
    "tls_server_config: {cert_file: 1, key_file: a}": "cert_file must be text",
    TLS % "cert_fil: c": "unknown key 'cert_fil' in tls_server_config",
    TLS % "client_ca_file: c": "client_ca_file without a client_auth_type verifies nobody",
    TLS % "client_auth_type: VerifyClientCertIfGiven": "client_auth_type needs a client_ca_file",
    TLS % "client_auth_type: RequestClientCert, client_ca_file: c": "which Python's ssl cannot do",
    TLS % "client_auth_type: Maybe": "client_auth_type 'Maybe' is not known",
    TLS % "client_allowed_sans: [a]": "client_allowed_sans needs a client_ca_file",
    TLS % "client_allowed_sans: a": "client_allowed_sans must be a list of texts",
    TLS % "min_version: TLS10": "min_version TLS10 is not offered: RFC 8996",
    TLS % "min_version: SSL3": "min_version 'SSL3' is not known; choose TLS12, TLS13",
    TLS % "min_version: TLS13, max_version: TLS12": "min_version is above max_version",
    TLS % "cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]": "cipher suite 'TLS_RSA_WITH_RC4_128_SHA' is not known",
    TLS % "curve_preferences: [CurveP256, X25519]": "curve_preferences names several curves",
    TLS % "prefer_server_cipher_suites: 1": "prefer_server_cipher_suites must be true or false",
    "basic_auth_users: {prom: secret}": "the password of user 'prom' must be a bcrypt hash",
    "basic_auth_users: {1: x}": "the user 1 of basic_auth_users must be text",
    f"basic_auth_users: {{'a:b': {HASH}}}": "must be text without a colon",
    f"basic_auth_users: {{prom: {HASH.replace('$10$', '$31$')}}}": "the bcrypt cost of user 'prom' is 31",
    "http_server_config: {headers: {X-Other: a}}": "unknown key 'X-Other' in headers",
    "http_server_config: {headers: {X-Frame-Options: maybe}}": "X-Frame-Options must be deny or sameorigin",
    'http_server_config: {headers: {X-XSS-Protection: "a\\r\\nb: c"}}': "the value of X-XSS-Protection cannot be sent",
    "http_server_config: {http3: true}": "unknown key 'http3' in http_server_config",
    "rate_limit: {interval: often}": "the interval 'often' of rate_limit is not a duration",
    "rate_limit: {interval: 1s, burst: 0}": "the burst of rate_limit must be a number of at least 1",
    "rate_limit: {burst: 1, queue: 3}": "unknown key 'queue' in rate_limit",
    "a: &a [*a]": "unknown key 'a'",
    "a: !!python/object/apply:os.system [x]": "could not determine a constructor",
    "[" * 5000: "",
}


def test_refusals_say_what_is_wrong(tmp_path: Path) -> None:
    found = {}
    for text in REFUSED:
        with pytest.raises(ConfigurationError) as told:
            read(tmp_path, text)
        found[text] = told.value.message
    wrong = {text: message for text, message in found.items() if REFUSED[text] not in message or "\n" in message}
    assert wrong == {}


def test_no_rate_limit(tmp_path: Path) -> None:
    for text in ("rate_limit: {interval: 0s}", 'rate_limit: {interval: "0"}', "rate_limit: {burst: 3}"):
        assert read(tmp_path, text).rate_limit is None


def test_options_are_absolute_and_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert web_options(certfile="a.pem", allowed_hosts=[" Metrics.Example. ", ""]) == WebOptions(
        certfile=f"{tmp_path}/a.pem", allowed_hosts=("metrics.example",)
    )
    with pytest.raises(ConfigurationError, match="--metrics-keyfile was given without --metrics-certfile"):
        web_options(keyfile="a.key")
    with pytest.raises(ConfigurationError, match="--web-config cannot be given together with --certfile and --keyfile"):
        web_options(web_config="web.yml", certfile="a", keyfile="b", prefix="--")
    variables = {"PROMGUN_METRICS_BEARER_TOKEN_FILE": "t", "PROMGUN_METRICS_ALLOWED_HOST": "a b"}
    assert web_options_from(variables) == WebOptions(bearer_token_file=f"{tmp_path}/t", allowed_hosts=("a", "b"))
