"""Parameter types of the commands that look at running instances: which one, and where to show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from promgun.cli.types import ParamType, completion
from promgun.config.metrics_addresses import Address, parse_address
from promgun.errors import MetricsAddressError

if TYPE_CHECKING:
    from promgun.cli.types import Items


class InstanceType(ParamType):
    """The name or pid of a running instance."""

    name = "instance"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:  # noqa: ARG002 - Click's
        """Names of the instances that run now."""
        from promgun.instances.registry import handles  # noqa: PLC0415 - read at a TAB only
        from promgun.terminal.output import printable  # noqa: PLC0415 - same

        return [
            completion(name, text=printable(f"pid {run.pid}, {run.application}"))
            for name, run in handles().items()
            if name.startswith(incomplete)
        ]


class MetricsAddressType(ParamType):
    """Where a metrics endpoint is to listen: ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Read the address; one that cannot be read is a usage error."""
        try:
            return value if isinstance(value, Address) else parse_address(value)
        except MetricsAddressError as error:
            return self.fail(str(error), param, ctx)
