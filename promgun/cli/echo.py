"""Every line and page that a command prints goes through here; control characters are escaped for a terminal.

``color=True`` keeps Click (8.1 to 8.3) from taking escape sequences out of what goes into a pipe: a page there is
byte for byte what Prometheus would get.
"""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from promgun.terminal.output import Output


def echo(text: str) -> None:
    """Print text on standard output, as it is."""
    click.echo(_output(sys.stdout).text(text), nl=False, color=True)


def echo_json(text: str) -> None:
    """Print JSON on standard output."""
    click.echo(_output(sys.stdout).json(text), nl=False, color=True)


def echo_drawn(text: str) -> None:
    """Print what :mod:`promgun.terminal` has drawn: cells are escaped already, colours stay escape sequences."""
    click.echo(text, nl=False, color=True)


def echo_page(text: str, form: str) -> None:
    """Print a page in one of the forms of ``--format``: JSON, a table that is drawn, or text."""
    {"json": echo_json, "table": echo_drawn}.get(form, echo)(text)


def say(line: str) -> None:
    """Print one line on standard error; on a terminal it stays one line."""
    click.echo(_output(sys.stderr).text(line, keep=""), err=True, color=True)


def say_lines(text: str) -> None:
    """Print lines on standard error."""
    click.echo(_output(sys.stderr).text(text), err=True, color=True)


def _output(stream: IO[str]) -> Output:
    from promgun.terminal.output import Output  # noqa: PLC0415 - a server prints nothing at its start

    return Output.of(stream)
