"""Accept queues of listening sockets, asked of the kernel without holding the sockets (Linux).

sock_diag(7) over netlink: for a listening TCP socket ``idiag_rqueue`` is what waits in its accept queue and
``idiag_wqueue`` the limit; for a Unix one ``UNIX_DIAG_RQLEN`` gives both. The metrics process must not hold the
application's listener: clients would go on queueing after the server stopped.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_HEADER = struct.Struct("=IHHII")
_TCP_LISTEN = 10
_TCP_STATES = 1 << _TCP_LISTEN
#: struct inet_diag_req_v2: family, protocol, extensions, pad, states, then the socket id (48 bytes, ignored in a dump)
_INET_REQUEST = struct.Struct("=BBBBI48x")
#: struct inet_diag_msg: family, state, timer, retrans, id {sport, dport, src[16], dst[16], if, cookie[2]}, expires,
#: rqueue, wqueue
_INET_MESSAGE = struct.Struct("=BBBB2s2s16s16sIIIIIIII")
#: struct unix_diag_req: family, protocol, pad, states, inode, show, cookie[2]
_UNIX_REQUEST = struct.Struct("=BBHIIIII")
_UNIX_SHOW_NAME_AND_QUEUE = 0x01 | 0x10
#: struct unix_diag_msg: family, type, state, pad, inode, cookie[2]
_UNIX_MESSAGE = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")
_UNIX_NAME = 0
_UNIX_QUEUE = 4
_NETSTAT = Path("/proc/net/netstat")


@dataclass(frozen=True, slots=True)
class Queue:
    """An accept queue: the listener's address, connections waiting now, and how many it holds at most."""

    address: str
    waiting: int
    limit: int


class AcceptQueues:
    """Reads the queues of the listeners at some addresses, spelled as Gunicorn prints them."""

    def __init__(self) -> None:
        self._usable = sys.platform == "linux"

    def read(self, addresses: Iterable[str]) -> list[Queue]:
        """Return a queue for each address that has a listener; sockets that share one (``--reuse-port``) are added up.

        Empty where the kernel does not tell: another system, or a sandbox without netlink.
        """
        wanted = {_endpoint(address): address for address in addresses}
        if not self._usable or not wanted:
            return []
        found: dict[str, Queue] = {}
        try:
            for endpoint, waiting, limit in [*_tcp_listeners(), *_unix_listeners()]:
                address = wanted.get(endpoint)
                if address is not None:
                    before = found.get(address, Queue(address, 0, 0))
                    found[address] = Queue(address, before.waiting + waiting, before.limit + limit)
        except OSError as error:
            if error.errno in {errno.EPROTONOSUPPORT, errno.EACCES, errno.EPERM, errno.ENOENT}:
                self._usable = False
        return list(found.values())


def _endpoint(address: str) -> str:
    """``http://127.0.0.1:8000`` → ``127.0.0.1:8000``; ``unix:/run/app.sock`` → ``/run/app.sock``."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:")
    host, _, port = address.partition("://")[2].rpartition(":")
    return f"{host.strip('[]')}:{port}"


def _ask(request: bytes) -> Iterator[bytes]:
    """Yield the messages of a dump; raises ``OSError``."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1.0)
        size = _HEADER.size + len(request)
        netlink.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + request)
        while True:
            data = netlink.recv(1 << 16)
            while len(data) >= _HEADER.size:
                length, kind = _HEADER.unpack_from(data)[:2]
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", data, _HEADER.size)[0]
                    raise OSError(code, os.strerror(code))
                yield data[_HEADER.size : length]
                data = data[(length + 3) & ~3 :]


def _tcp_listeners() -> Iterator[tuple[str, int, int]]:
    for family, width in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        for message in _ask(_INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _TCP_STATES)):
            fields = _INET_MESSAGE.unpack_from(message)
            port = int.from_bytes(fields[4], "big")
            host = socket.inet_ntop(family, fields[6][:width])
            yield f"{host}:{port}", fields[12], fields[13]


def _unix_listeners() -> Iterator[tuple[str, int, int]]:
    any_cookie = 0xFFFFFFFF
    request = _UNIX_REQUEST.pack(
        socket.AF_UNIX, 0, 0, _TCP_STATES, 0, _UNIX_SHOW_NAME_AND_QUEUE, any_cookie, any_cookie
    )
    for message in _ask(request):
        name, waiting, limit = "", 0, 0
        rest = message[_UNIX_MESSAGE.size :]
        while len(rest) >= _ATTRIBUTE.size:
            length, kind = _ATTRIBUTE.unpack_from(rest)
            if length < _ATTRIBUTE.size:
                break
            value = rest[_ATTRIBUTE.size : length]
            if kind == _UNIX_NAME:
                name = (
                    os.fsdecode(value.rstrip(b"\0")) if not value.startswith(b"\0") else "\0" + os.fsdecode(value[1:])
                )
            elif kind == _UNIX_QUEUE:
                waiting, limit = struct.unpack_from("=II", value)
            rest = rest[(length + 3) & ~3 :]
        if name:
            yield name, waiting, limit


def read_overflows(netstat: Path = _NETSTAT) -> dict[str, float]:
    """Return the network namespace's counts of connections that found a full queue (``overflows``) and were dropped
    (``drops``).

    TcpExt ListenOverflows and ListenDrops of /proc/net/netstat; empty where there is no such file.
    """
    try:
        lines = netstat.read_text().splitlines()
    except OSError:
        return {}
    for names, values in pairwise(lines):
        if names.startswith("TcpExt:") and values.startswith("TcpExt:"):
            fields = dict(zip(names.split()[1:], values.split()[1:], strict=False))
            if "ListenOverflows" in fields and "ListenDrops" in fields:
                return {"overflows": float(fields["ListenOverflows"]), "drops": float(fields["ListenDrops"])}
    return {}
