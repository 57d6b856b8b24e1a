"""How Prometheus shows who it is to endpoints that ask, as its configuration and the Operator's objects write it."""

from __future__ import annotations

from dataclasses import dataclass

from promgun.errors import UsageError
from promgun.export.emitter import Node
from promgun.export.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeCredentials:
    """Files on Prometheus' host: ``ca_file`` verifies the endpoints, the others say who asks."""

    tls: bool = option(default=False, text="The endpoints speak TLS; the other TLS options say so too.")
    ca_file: str = option("", "Verify them by these authorities, not by the system's.", "FILE")
    server_name: str = option("", "The name in their certificates, where it is not the target's.", "NAME")
    cert_file: str = option("", "Show them this client certificate.", "FILE")
    key_file: str = option("", "Its key.", "FILE")
    user: str = option("", "Ask as this user.", "NAME")
    password_file: str = option("", "The user's password.", "FILE")
    bearer_token_file: str = option("", "Ask with the token in this file.", "FILE")

    def fields(self) -> dict[str, Node]:
        """Return what a scrape job says of it; raises ``UsageError`` for options that do not fit together."""
        _together("--cert-file", self.cert_file, "--key-file", self.key_file)
        _together("--user", self.user, "--password-file", self.password_file)
        if self.user and self.bearer_token_file:
            raise UsageError(
                "--user and --bearer-token-file cannot be given together", "Give the one that is asked for"
            )
        names = ("ca_file", "cert_file", "key_file", "server_name")
        files: dict[str, Node] = {name: getattr(self, name) for name in names if getattr(self, name)}
        found: dict[str, Node] = {"scheme": "https"} if self.tls or files else {}
        if files:
            found["tls_config"] = files
        if self.user:
            found["basic_auth"] = {"username": self.user, "password_file": self.password_file}
        if self.bearer_token_file:
            found["authorization"] = {"type": "Bearer", "credentials_file": self.bearer_token_file}
        return found


def _together(flag: str, value: str, other_flag: str, other: str) -> None:
    if bool(value) != bool(other):
        given, missing = (flag, other_flag) if value else (other_flag, flag)
        raise UsageError(f"{given} was given without {missing}", "Give both")


#: Where the pod finds its secret, and what the files there are called.
WEB_FOLDER = "/etc/promgun/web"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodProtection:
    """Secrets of a cluster: ``web_secret`` protects the endpoint, ``scrape_secret`` is what Prometheus shows to it."""

    web_secret: str = option(
        "",
        "Protect the endpoint by this Secret: web.yml, the web configuration, and the files that it names; "
        "with --bearer-token the token, and tls.crt and tls.key.",
        "NAME",
    )
    scrape_secret: str = option(
        "", "What Prometheus shows: a Secret with ca.crt, tls.crt and tls.key, username and password, or token.", "NAME"
    )
    tls: bool = option(default=False, text="The endpoint speaks TLS, and is verified by ca.crt.")
    server_name: str = option("", "The name in its certificate; pods are scraped by their addresses.", "NAME")
    client_certificates: bool = option(default=False, text="It requires client certificates.")
    basic_auth: bool = option(default=False, text="It asks for a user and a password.")
    bearer_token: bool = option(default=False, text="It asks for a token.")

    @property
    def speaks_tls(self) -> bool:
        """Whether it is asked over https."""
        return self.tls or self.client_certificates or bool(self.server_name)

    def check(self) -> None:
        """Raise ``UsageError`` for options that do not fit together."""
        asks = self.basic_auth or self.bearer_token
        if (self.speaks_tls or asks) != bool(self.web_secret):
            raise UsageError(
                "--web-secret and what it brings about (--tls, --basic-auth, --bearer-token …) need each other",
                "Name the Secret, and say what it makes the endpoint ask for",
            )
        if (self.speaks_tls or asks) and not self.scrape_secret:
            raise UsageError("--scrape-secret is missing: Prometheus would be refused", "Name the Secret that it shows")
        if self.bearer_token and (self.basic_auth or self.client_certificates):
            raise UsageError(
                "--bearer-token cannot be given together with --basic-auth or --client-certificates",
                "exporter-toolkit's web configuration knows no tokens",
            )

    def arguments(self) -> tuple[str, ...]:
        """Return the options of ``promgun run`` that protect the endpoint."""
        if not self.web_secret:
            return ()
        if not self.bearer_token:
            return ("--metrics-web-config", f"{WEB_FOLDER}/web.yml")
        token = ("--metrics-bearer-token-file", f"{WEB_FOLDER}/token")
        if not self.speaks_tls:
            return token
        return (*token, "--metrics-certfile", f"{WEB_FOLDER}/tls.crt", "--metrics-keyfile", f"{WEB_FOLDER}/tls.key")

    def fields(self) -> dict[str, Node]:
        """Return what a PodMonitor's endpoint says of it."""
        found: dict[str, Node] = {}
        if self.speaks_tls:
            tls: dict[str, Node] = {"ca": {"secret": self._key("ca.crt")}}
            if self.client_certificates:
                tls |= {"cert": {"secret": self._key("tls.crt")}, "keySecret": self._key("tls.key")}
            if self.server_name:
                tls["serverName"] = self.server_name
            found |= {"scheme": "https", "tlsConfig": tls}
        if self.basic_auth:
            found["basicAuth"] = {"username": self._key("username"), "password": self._key("password")}
        if self.bearer_token:
            found["authorization"] = {"type": "Bearer", "credentials": self._key("token")}
        return found

    def _key(self, key: str) -> Node:
        return {"name": self.scrape_secret, "key": key}
