"""``promgun completion``."""

from __future__ import annotations

import click

from promgun.cli.echo import echo

SHELLS = ("bash", "zsh", "fish")


@click.command(
    short_help="Print the completion script of a shell.",
    epilog="""\b
    Examples:
      promgun completion bash > ~/.local/share/bash-completion/completions/promgun
      promgun completion zsh  > ~/.zfunc/_promgun        (with ~/.zfunc in fpath)
      promgun completion fish > ~/.config/fish/completions/promgun.fish
    """,
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of SHELL: bash (4.4 or newer), zsh or fish.

    The folder of the file must exist. A system-wide installation brings the same files to the shells' own folders.
    """
    from promgun.cli.shells import script  # noqa: PLC0415 - not needed for --help

    echo(script(shell))
