"""Ports that stay a node's own: reserved by a socket that is bound but never listens.

A node that is killed and started again must come back on the same port (its peers and the link
proxies know it by that), and nobody else may take the port in between. Choosing a free port and
closing it again leaves exactly that gap: under load another program's outgoing connection takes it.

So the runner holds, for as long as the cluster lives, a socket that is *bound* with SO_REUSEPORT
but does not *listen*. The node binds the same port with SO_REUSEPORT too, and listens.

- A connection goes to a listening socket alone. Linux looks SYNs up among listeners only; the BSDs
  and macOS ask the socket that was bound last, which is the node's. (The Linux half is tested here
  and in CI; the macOS half rests on documentation.)
- When the node is dead nobody listens, and the kernel answers at once with a reset: connection
  refused, which is what the death of a process looks like in the field.
- A server of somebody else's (Redis, Kafka) sets SO_REUSEADDR and not SO_REUSEPORT. On Linux that
  is enough, for both sockets have it and ours does not listen. Elsewhere it is not, and `lend`
  gives the port back before such a server starts: there the gap remains.
- The kernel gives a port with a bound socket to nobody who asks for "any port" (port 0, or the
  source of an outgoing connection), and SO_REUSEPORT shares it only within one user.
"""

from __future__ import annotations

import socket
import sys

LOOPBACK = "127.0.0.1"


class PortReservation:
    """Loopback ports held for one cluster, by name; `close()` gives them back."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}
        self._addresses: dict[str, str] = {}

    def reserve(self, name: str) -> str:
        """The "host:port" of `name`, reserved on the first call."""
        if name not in self._addresses:
            reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                reserved.bind((LOOPBACK, 0))
            except OSError:
                reserved.close()
                raise
            self._sockets[name] = reserved
            host, port = reserved.getsockname()
            self._addresses[name] = f"{host}:{port}"
        return self._addresses[name]

    def lend(self, name: str) -> str:
        """As `reserve`, for a server that does not set SO_REUSEPORT."""
        address = self.reserve(name)
        if sys.platform != "linux" and name in self._sockets:
            self._sockets.pop(name).close()
        return address

    def close(self) -> None:
        for reserved in self._sockets.values():
            reserved.close()
        self._sockets.clear()
