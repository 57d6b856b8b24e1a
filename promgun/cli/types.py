"""Parameter types of ``promgun run``: what a value on the command line may be, and how TAB completes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    Items = list[CompletionItem]
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # not generic in Click 8.1 to 8.3


def completion(value: str, kind: str = "plain", text: str | None = None) -> CompletionItem:
    """Return one completion; the shell looks for files or folders itself if ``kind`` is ``file`` or ``dir``."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - for a TAB only

    return CompletionItem(value, kind, text)


def starting_with(incomplete: str, values: Iterable[str]) -> Items:
    """Completions: those of ``values`` that begin with what is typed."""
    return [completion(value) for value in values if value.startswith(incomplete)]


class AppType(ParamType):
    """An application: ``module:name``, ``module:factory()``, or a module."""

    name = "app"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:  # noqa: ARG002 - Click's
        """Modules of the working directory (``--chdir``), then the callables of the one that is named."""
        from promgun.cli.app_names import candidates  # noqa: PLC0415 - read at a TAB only

        return starting_with(incomplete, candidates(incomplete, str(ctx.params.get("chdir") or ".")))


class WorkerClassType(ParamType):
    """The name of a worker type, ours or Gunicorn's, or the dotted path of a class."""

    name = "worker_type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an unknown name and suggest the closest; a dotted path is imported at launch."""
        from gunicorn.workers import SUPPORTED_WORKERS  # noqa: PLC0415 - the CLI imports this module at start

        from promgun.config.worker_types import WORKER_TYPES, suggest  # noqa: PLC0415 - same

        names = [worker_type.name for worker_type in WORKER_TYPES]
        plain = str(value).strip().removeprefix("#")
        if plain in names or plain in SUPPORTED_WORKERS or "." in plain or plain.startswith("egg:"):
            return value
        close = suggest(plain)
        meant = f" Did you mean {close!r}?" if close else ""
        known = ", ".join(names)
        return self.fail(
            f"no worker type is called {value!r}.{meant} Choose {known}, or name a class by its dotted path", param, ctx
        )

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:  # noqa: ARG002 - Click's
        """The names, each with what it is for."""
        from promgun.config.worker_types import WORKER_TYPES  # noqa: PLC0415 - for a TAB only

        return [
            completion(worker_type.name, text=worker_type.summary)
            for worker_type in WORKER_TYPES
            if worker_type.name.startswith(incomplete)
        ]
