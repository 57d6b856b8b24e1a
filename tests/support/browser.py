"""A headless Chromium, driven by the plain HTTP calls of W3C WebDriver."""

from __future__ import annotations

import base64
import http.client
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

from tests.support.sandbox import Sandbox, wait_until

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_PORT = re.compile(r"started successfully on port (\d+)")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
#: Seconds that a command may take: the first starts the browser.
_PATIENCE = 60.0


class Browser:
    """One window of a browser with an empty profile, gone with the ``with`` block; its files lie in the sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._log = sandbox.directory / "chromedriver.log"
        self._driver: subprocess.Popen[bytes]
        self._port = 0
        self._session = ""

    def __enter__(self) -> Self:
        home = self._sandbox.directory / "browser"
        home.mkdir()
        with self._log.open("wb") as log:
            self._driver = subprocess.Popen(
                ["chromedriver", "--port=0"],
                cwd=self._sandbox.directory,
                # Chromium may leave a scoped_dir behind; a test looks at what the server leaves.
                env=self._sandbox.environment({"HOME": str(home), "TMPDIR": str(home)}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._port = int(wait_until(lambda: _PORT.search(self._log.read_text()), message=self._log.read_text)[1])
            self._session = self._open_session()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._call("DELETE", f"/session/{self._session}")
        finally:
            self._end()

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait(_PATIENCE)

    def _open_session(self) -> str:
        profile = self._sandbox.directory / "profile"
        profile.mkdir()
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": [*_FLAGS, f"--user-data-dir={profile}"]},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        return str(self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"])

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE)
        try:
            connection.request(
                method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            value = json.loads(response.read())["value"]
        finally:
            connection.close()
        assert response.status == 200, f"{method} {path}: {value}"
        return value

    def command(self, name: str, **body: object) -> Any:
        """Give the session a command, as https://www.w3.org/TR/webdriver2 names it."""
        return self._call("POST", f"/session/{self._session}/{name}", body)

    def devtools(self, name: str, **parameters: object) -> None:
        """Give the browser a command of its own protocol."""
        self.command("goog/cdp/execute", cmd=name, params=parameters)

    def open(self, url: str) -> None:
        """Go to a page and wait until it has loaded."""
        self.command("url", url=url)

    def run(self, script: str) -> Any:
        """Return what a script returns that runs in the page."""
        return self.command("execute/sync", script=script, args=[])

    def text(self, selector: str) -> str:
        """Return the text of the first element of that kind as a reader sees it, empty if it is hidden."""
        text = self.run(f"return document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return str(text).replace("\xa0", " ")

    def resize(self, width: int, height: int = 900, *, mobile: bool = False) -> None:
        """Make the page that large, in CSS pixels, narrower than a window can be made."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )

    def prefer(self, scheme: str) -> None:
        """Have the reader prefer a light or a dark page."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self) -> bytes:
        """Return a PNG of what is seen."""
        return base64.b64decode(self._call("GET", f"/session/{self._session}/screenshot"))

    def console(self) -> list[str]:
        """Return what the console says that it has not said before."""
        entries = self.command("se/log", type="browser")
        return [f"{entry['level']}: {entry['message']}" for entry in entries]
