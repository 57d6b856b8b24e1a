"""Follows the steps of uvicorn's server: it looks at its state every tenth of a second (0.30 to 0.54)."""

from __future__ import annotations

from typing import Any

from uvicorn.server import Server

from promgun.workers._uvicorn_shortcuts import forget_ended

_INTERVAL = 0.1
_LAST = "promgun_last"


def follow_ticks() -> None:
    """Have each step of a server in this process told to the worker that its configuration belongs to, if any."""
    on_tick = Server.on_tick
    if getattr(on_tick, "by_promgun", False):
        return

    async def follow_tick(server: Any, counter: int) -> bool:
        ends: bool = await on_tick(server, counter)
        worker = getattr(server.config, "promgun_worker", None)
        if worker is not None:
            if ends:
                worker.loop_lag.last_beat()
                forget_ended(server.server_state.tasks)
            else:
                worker.loop_lag.beat(_INTERVAL)
        return ends

    follow_tick.by_promgun = True  # type: ignore[attr-defined] # recognised above
    Server.on_tick = follow_tick  # type: ignore[method-assign, assignment] # the same call
