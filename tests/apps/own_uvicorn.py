"""A worker class of a user's, derived from uvicorn's, with other protocols."""

from __future__ import annotations

from uvicorn_worker import UvicornWorker


class H11Worker(UvicornWorker):  # type: ignore[misc] # untyped
    """uvicorn's worker on h11 and wsproto."""

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "http": "h11", "ws": "wsproto"}  # noqa: RUF012 - as in the base class
