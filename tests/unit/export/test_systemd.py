"""The exported unit: names, quoting, rights. What systemd says of it stands in tests/process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from promgun.errors import UsageError
from promgun.export.command import ServerOptions
from promgun.export.systemd import SystemdOptions, systemd

OPTIONS = SystemdOptions(name="shop", user="shop", directory="/srv/shop", program="/srv/shop/bin/promgun")


def unit(options: SystemdOptions) -> dict[str, list[str]]:
    """Return what a unit says under each name."""
    found: dict[str, list[str]] = {}
    for line in systemd(options).splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_unit() -> None:
    found = unit(OPTIONS)
    assert found["Type"] == ["notify"]
    assert found["ExecReload"] == ["/bin/kill -s HUP $MAINPID"]
    (command,) = found["ExecStart"]
    assert command.startswith("/srv/shop/bin/promgun run --bind 127.0.0.1:8000 --metrics-bind 127.0.0.1:9164 ")
    assert command.endswith(" --workers 2 --worker-type sync app:wsgi")
    assert found["User"] == found["Group"] == found["RuntimeDirectory"] == ["shop"]
    assert found["Environment"] == ["PROMGUN_RUNTIME_DIR=/run/shop"]
    # A worker that is killed for memory must not take the server with it.
    assert found["OOMPolicy"] == ["continue"]
    assert found["CapabilityBoundingSet"] == [""]


def test_low_port_needs_its_capability() -> None:
    found = unit(replace(OPTIONS, server=ServerOptions(bind="0.0.0.0:443", metrics_bind="unix:/run/shop/m.sock")))
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]


def test_quoting() -> None:
    found = unit(
        replace(
            OPTIONS,
            server=ServerOptions(app='a:b("x y", "5%", "$H")'),
            description="100% $HOME",
            environment=("A=1", 'B=c "d" \\ $E %f'),
        )
    )
    assert found["ExecStart"][0].endswith(r'"a:b(\"x y\", \"5%%\", \"$$H\")"')
    assert found["Environment"][1:] == ["A=1", r'"B=c \"d\" \\ $E %%f"']
    assert found["Description"] == ["100%% $HOME"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "'a b' is not a unit's name"),
        ({"name": "../a"}, "is not a unit's name"),
        ({"user": "a b"}, "'a b' is not a user or group"),
        ({"group": "a:b"}, "is not a user or group"),
        ({"program": "promgun"}, "'promgun' is not an absolute path"),
        ({"directory": "srv"}, "is not an absolute path"),
        ({"description": "a\nExecStart=/bin/evil"}, "do not fit into a unit"),
        ({"environment": ("A",)}, "'A' is not an environment variable"),
        ({"environment": ("A=b\nUser=root",)}, "do not fit into a unit"),
        ({"server": ServerOptions(app="")}, "'' is not an application"),
        ({"server": ServerOptions(bind="8000")}, "is not an address"),
    ],
)
def test_what_systemd_would_refuse(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        systemd(replace(OPTIONS, **changes))  # type: ignore[arg-type] # of several fields
