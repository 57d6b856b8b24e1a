"""What Prometheus is told of endpoints that ask who comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from promgun.errors import UsageError
from promgun.export.kubernetes import KubernetesOptions, kubernetes
from promgun.export.protection import PodProtection, ScrapeCredentials
from promgun.export.scrape import ScrapeOptions, scrape
from tests.support.yamls import parse, parse_all


def job(**given: Any) -> dict[str, Any]:
    (found,) = parse(scrape(ScrapeOptions(credentials=ScrapeCredentials(**given))))["scrape_configs"]
    del found["job_name"], found["scrape_interval"], found["static_configs"]
    return dict(found)


def test_scrape_jobs() -> None:
    assert job() == {}
    assert job(tls=True) == {"scheme": "https"}
    assert job(ca_file="ca.pem", server_name="web", cert_file="c", key_file="k", user="u", password_file="p") == {
        "scheme": "https",
        "tls_config": {"ca_file": "ca.pem", "cert_file": "c", "key_file": "k", "server_name": "web"},
        "basic_auth": {"username": "u", "password_file": "p"},
    }
    assert job(bearer_token_file="t") == {"authorization": {"type": "Bearer", "credentials_file": "t"}}


@pytest.mark.parametrize(
    "given",
    [
        {"cert_file": "c"},
        {"key_file": "k"},
        {"user": "u"},
        {"password_file": "p"},
        {"user": "u", "password_file": "p", "bearer_token_file": "t"},
    ],
)
def test_half_of_a_credential_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        job(**given)


def objects(**given: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return pod, container and the PodMonitor's endpoint."""
    made = parse_all(kubernetes(KubernetesOptions(protection=PodProtection(**given))))
    pod = made[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (endpoint,) = made[2]["spec"]["podMetricsEndpoints"]
    return pod, container, endpoint


PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def test_pods_over_mutual_tls_with_passwords() -> None:
    pod, container, endpoint = objects(
        web_secret="web", scrape_secret="shown", client_certificates=True, basic_auth=True, server_name="web.example"
    )
    assert pod["volumes"][1] == {"name": "web", "secret": {"secretName": "web", "defaultMode": 0o444}}
    assert container["volumeMounts"][1] == {"name": "web", "mountPath": "/etc/promgun/web", "readOnly": True}
    place = container["args"].index("--metrics-web-config")
    assert container["args"][place + 1] == "/etc/promgun/web/web.yml"
    assert [container[probe].get("tcpSocket") for probe in PROBES] == [{"port": "metrics"}] * 3
    assert [probe for probe in PROBES if "httpGet" in container[probe]] == []
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"] == {
        "ca": {"secret": {"name": "shown", "key": "ca.crt"}},
        "cert": {"secret": {"name": "shown", "key": "tls.crt"}},
        "keySecret": {"name": "shown", "key": "tls.key"},
        "serverName": "web.example",
    }
    assert endpoint["basicAuth"] == {
        "username": {"name": "shown", "key": "username"},
        "password": {"name": "shown", "key": "password"},
    }
    text = kubernetes(
        KubernetesOptions(protection=PodProtection(web_secret="w", scrape_secret="s", client_certificates=True))
    )
    assert "The kubelet has no client certificate to show" in text


def test_pods_with_a_token() -> None:
    _, container, endpoint = objects(web_secret="web", scrape_secret="shown", tls=True, bearer_token=True)
    assert "--metrics-web-config" not in container["args"]
    assert {"--metrics-bearer-token-file", "--metrics-certfile", "--metrics-keyfile"} <= set(container["args"])
    assert {container[probe]["httpGet"]["scheme"] for probe in PROBES} == {"HTTPS"}
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": {"name": "shown", "key": "token"}}


@pytest.mark.parametrize(
    "given",
    [
        {"tls": True, "scrape_secret": "s"},
        {"web_secret": "w"},
        {"web_secret": "w", "tls": True},
        {"web_secret": "w", "scrape_secret": "s", "bearer_token": True, "basic_auth": True},
    ],
)
def test_what_prometheus_could_not_scrape_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        kubernetes(replace(KubernetesOptions(), protection=PodProtection(**given)))
