"""What one master hands to the next."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from promgun.config.listeners import bind_all, close_and_unlink
from promgun.config.metrics_addresses import parse_address
from promgun.config.reexec import GUNICORN_PID, VARIABLE, Handover


def test_round_trip(tmp_path: Path) -> None:
    """The new master gets the same sockets, each under the address it was asked for: port 0 as well."""
    listeners = bind_all(map(parse_address, ("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/s")))
    environment = {GUNICORN_PID: "1"}
    copies = {place: socket.socket(fileno=os.dup(sock.fileno())) for place, sock in listeners.items()}
    Handover(tmp_path, private=True, listeners=copies, activated=True).to_environment(environment)
    for copy in copies.values():
        copy.set_inheritable(True)
    handover = Handover.from_environment(environment)
    assert handover is not None
    assert (handover.store, handover.private, handover.activated) == (tmp_path, True, True)
    assert list(handover.listeners) == list(listeners)
    for place, sock in handover.listeners.items():
        assert sock.getsockname() == listeners[place].getsockname()
        assert not sock.get_inheritable()
        assert sock.gettimeout() == 0
        copies[place].detach()
        sock.close()
        close_and_unlink(listeners[place])
    assert VARIABLE not in environment


def test_only_a_master_that_was_executed_by_another_takes_it() -> None:
    environment: dict[str, str] = {}
    Handover(Path("/x"), private=False).to_environment(environment)
    assert Handover.from_environment(environment) is None
    assert VARIABLE not in environment
    assert Handover.from_environment({GUNICORN_PID: "1"}) is None
