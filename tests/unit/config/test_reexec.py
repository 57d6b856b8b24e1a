"""What one master hands to the next."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from promgun.config.listeners import bind_all, close_and_unlink
from promgun.config.metrics_addresses import parse_address
from promgun.config.reexec import Handover
from promgun.config.run_settings import GUNICORN_PID, HANDOVER
from promgun.store.run_directory import FORMAT


def test_round_trip(tmp_path: Path) -> None:
    """The new master gets the same sockets, each under the address it was asked for: port 0 as well."""
    listeners = bind_all(map(parse_address, ("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/s")))
    environment = {GUNICORN_PID: "1"}
    copies = {place: socket.socket(fileno=os.dup(sock.fileno())) for place, sock in listeners.items()}
    given = Handover(
        tmp_path,
        private=True,
        format=FORMAT,
        identity=(7, 42),
        second_client=tmp_path / "client",
        listeners=copies,
        activated=True,
    )
    given.to_environment(environment)
    for copy in copies.values():
        copy.set_inheritable(True)
    handover = Handover.from_environment(environment)
    assert handover is not None
    assert (handover.store, handover.private, handover.activated) == (tmp_path, True, True)
    assert (handover.identity, handover.second_client) == ((7, 42), tmp_path / "client")
    assert handover.is_readable
    assert list(handover.listeners) == list(listeners)
    for place, sock in handover.listeners.items():
        assert sock.getsockname() == listeners[place].getsockname()
        assert not sock.get_inheritable()
        assert sock.gettimeout() == 0
        copies[place].detach()
        sock.close()
        close_and_unlink(listeners[place])
    assert HANDOVER not in environment


def test_only_a_master_that_was_executed_by_another_takes_it() -> None:
    environment: dict[str, str] = {}
    Handover(Path("/x"), private=False, format=FORMAT).to_environment(environment)
    assert Handover.from_environment(environment) is None
    assert HANDOVER not in environment
    assert Handover.from_environment({GUNICORN_PID: "1"}) is None


def test_a_store_of_another_format_is_not_gone_on_with() -> None:
    environment = {GUNICORN_PID: "1"}
    Handover(Path("/x"), private=True, format="promgun store 99\n").to_environment(environment)
    handover = Handover.from_environment(environment)
    assert handover is not None
    assert not handover.is_readable


def test_a_master_that_knows_of_no_format_has_a_store_of_its_own() -> None:
    """The release before: its listeners are taken over, its store is not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        old = {"store": "/x", "private": True, "listeners": [os.dup(listener.fileno())], "activated": False}
        handover = Handover.from_environment({GUNICORN_PID: "1", HANDOVER: json.dumps(old)})
        assert handover is not None
        assert not handover.is_readable
        (place,) = handover.listeners
        assert place.sockaddr == listener.getsockname()
        handover.listeners[place].close()
