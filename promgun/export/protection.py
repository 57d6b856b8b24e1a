"""How Prometheus authenticates to protected endpoints, in its configuration and in the Operator's objects."""

from __future__ import annotations

from dataclasses import dataclass

from promgun.errors import UsageError
from promgun.export.emitter import Node
from promgun.export.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeCredentials:
    """Files on Prometheus' host: ``ca_file`` verifies the endpoints, the others authenticate Prometheus."""

    tls: bool = option(default=False, text="The endpoints speak TLS; implied by a CA, a certificate or a server name.")
    ca_file: str = option("", "Certificates of the authorities to trust, in place of the system's.", "FILE")
    server_name: str = option("", "The name in the endpoints' certificates, if it is not the target's host.", "NAME")
    cert_file: str = option("", "The client certificate that Prometheus shows.", "FILE")
    key_file: str = option("", "The key of the client certificate.", "FILE")
    user: str = option("", "The user name for basic authentication.", "NAME")
    password_file: str = option("", "The file with the user's password.", "FILE")
    bearer_token_file: str = option("", "The file with the bearer token.", "FILE")

    def fields(self) -> dict[str, Node]:
        """Return the fields of a scrape job; raises ``UsageError`` for options that do not fit together."""
        _together("--cert-file", self.cert_file, "--key-file", self.key_file)
        _together("--user", self.user, "--password-file", self.password_file)
        if self.user and self.bearer_token_file:
            raise UsageError(
                "--user and --bearer-token-file cannot be given together", "Give the one that the endpoints ask for"
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


#: Where the Secret that protects the endpoint is mounted in the pod.
WEB_FOLDER = "/etc/promgun/web"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodProtection:
    """Secrets of a cluster: ``web_secret`` protects the endpoint, with ``scrape_secret`` Prometheus authenticates."""

    web_secret: str = option(
        "",
        "The Secret that protects the endpoint. It holds web.yml, the web configuration, and the files that this "
        "names; with --bearer-token it holds token, and for TLS tls.crt and tls.key.",
        "NAME",
    )
    scrape_secret: str = option(
        "",
        "The Secret that Prometheus uses: ca.crt, tls.crt and tls.key, username and password, or token.",
        "NAME",
    )
    tls: bool = option(default=False, text="The endpoint speaks TLS; its certificate is verified by ca.crt.")
    server_name: str = option(
        "", "The name in the endpoint's certificate, because Prometheus scrapes pods by their IP addresses.", "NAME"
    )
    client_certificates: bool = option(default=False, text="The endpoint requires client certificates.")
    basic_auth: bool = option(default=False, text="The endpoint asks for a user and a password.")
    bearer_token: bool = option(default=False, text="The endpoint asks for a bearer token.")

    @property
    def speaks_tls(self) -> bool:
        """Whether the endpoint is scraped over https."""
        return self.tls or self.client_certificates or bool(self.server_name)

    def check(self) -> None:
        """Raise ``UsageError`` for options that do not fit together."""
        asks = self.basic_auth or self.bearer_token
        if (self.speaks_tls or asks) != bool(self.web_secret):
            raise UsageError(
                "--web-secret goes together with at least one of --tls, --client-certificates, --basic-auth and "
                "--bearer-token",
                "Name the Secret, and what the endpoint asks for because of it",
            )
        if (self.speaks_tls or asks) and not self.scrape_secret:
            raise UsageError(
                "--scrape-secret is missing: the endpoint would refuse Prometheus",
                "Name the Secret with what Prometheus needs",
            )
        if self.bearer_token and (self.basic_auth or self.client_certificates):
            raise UsageError(
                "--bearer-token cannot be given together with --basic-auth or --client-certificates",
                "Choose one: web.yml, which the others need, knows no tokens",
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
        """Return the fields of a PodMonitor's endpoint."""
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
