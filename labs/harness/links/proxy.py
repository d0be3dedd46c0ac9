"""One listener per directed link; what connects to it is spliced to the link's target.

Theory of operation. A connection is two `Stream`s between two sockets. A fault is set on the whole
link in one event-loop step: open connections feel it in that step, new ones from then on.

- Held (`blackhole`, `drop`, `clog`): both sockets stay open and nothing moves, neither bytes nor
  ends nor resets. After the heal all of it arrives, in order: TCP would have retransmitted it.
- A connection that arrives while requests are held is accepted and not connected further; its
  bytes wait. If its caller gives up before the heal, it is as if it had never been: over a real
  cut its SYN would not have arrived either. (Half-closing before the heal counts as giving up.)
- `refuse`, `reset`: open connections get a reset on both sides. Under `refuse` the listener is
  closed, and a socket that is bound but does not listen keeps the port ours (SO_REUSEPORT).
- A target that refuses, or resets, becomes a reset for the caller, at once.

Where this differs from a real cut: connecting succeeds during a `blackhole` (there: a connect
timeout); a dead target shows as a reset after connecting, not as a refusal; a `delay` does not
slow the handshake.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from typing import TYPE_CHECKING, Any

from labs.harness.links.fault import Link, LinkFault, LinkStats, StreamStats
from labs.harness.links.stream import Shape, Stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

# Beyond these many connections a link stops accepting: callers wait in the kernel's backlog, as
# they would for a SYN that is lost. Two descriptors each.
MAX_CONNECTIONS = 2048
BACKLOG = 1024
CONNECT_WITHIN_S = 5.0
# A reset strikes when the caller's first bytes are there: struck sooner, it could surface while the
# caller still connects, which would be a definite error. One that says nothing waits this long.
RESET_WITHIN_S = 0.05
# What a connection that is not connected further may bring along: one request, not a flood.
EARLY_BYTES = 64 * 1024

Address = tuple[socket.AddressFamily, Any]


class Connection:
    """One accepted connection and, once connected, its other half at the target."""

    def __init__(self, proxy: LinkProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._loop = proxy.loop
        self.client: socket.socket | None = client
        self.server: socket.socket | None = None
        self._early = b""
        self._waiting = False  # accepted while requests are held
        self._connecting: asyncio.TimerHandle | None = None
        self._failed = False
        self.request = Stream(self._loop, proxy.request, self._settle, self.fail)
        self.response = Stream(self._loop, proxy.response, self._settle, self.fail)

    def refresh(self) -> None:
        """The link's fault has changed (or the connection is new)."""
        if self._failed:
            self._settle()
        elif self.server is not None:
            if self._connecting is None:
                self.request.refresh()
                self.response.refresh()
        elif self._proxy.resets_new():
            self._wait(True)
            self._deadline(RESET_WITHIN_S, self._reset)
        elif not self._proxy.request.held or self._proxy.request.absorbs:
            self._wait(False)
            self._connect()
        else:
            self._cancel_deadline()
            self._wait(True)

    def held_bytes(self) -> tuple[int, int]:
        """(of the request, of the response)."""
        return len(self._early) + self.request.held_bytes(), self.response.held_bytes()

    def gave_up(self) -> bool:
        """Whether the caller has said its end (it may have gone): the first to make room."""
        return self.request.ended

    def _wait(self, waiting: bool) -> None:
        if waiting == self._waiting or self.client is None:
            return
        self._waiting = waiting
        if waiting:
            self._loop.add_reader(self.client, self._read_early)
        else:
            self._loop.remove_reader(self.client)

    def _read_early(self) -> None:
        """Take in what comes before the heal, to notice when the caller gives up."""
        assert self.client is not None
        if self._proxy.resets_new():
            self._reset()
            return
        try:
            data = self.client.recv(EARLY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._proxy.request.abandoned += len(self._early)
            self.close(reset=False)
            return
        self._early += data
        if len(self._early) >= EARLY_BYTES:
            self._wait(False)

    def _reset(self) -> None:
        self._proxy.resets += 1
        self.close(reset=True)

    def _deadline(self, within_s: float, late: Callable[[], None]) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        self._connecting = self._loop.call_later(within_s, late)

    def _cancel_deadline(self) -> bool:
        deadline, self._connecting = self._connecting, None
        if deadline is not None:
            deadline.cancel()
        return deadline is not None

    def _connect(self) -> None:
        family, address = self._proxy.target
        try:
            self.server = socket.socket(family, socket.SOCK_STREAM)
        except OSError:  # out of descriptors
            self._refused()
            return
        self.server.setblocking(False)
        self._deadline(self._proxy.connect_within_s, self._refused)
        code = self.server.connect_ex(address)
        if code in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._loop.add_writer(self.server, self._connected)
        else:
            self._refused()

    def _connected(self) -> None:
        assert self.server is not None
        assert self.client is not None
        self._loop.remove_writer(self.server)
        if self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._refused()
            return
        self._cancel_deadline()
        _no_delay(self.server)
        early, self._early = self._early, b""
        server, client = self.server, self.client
        self.response.start(server, client)
        if not self._failed:
            self.request.start(client, server, early)

    def _refused(self) -> None:
        self._proxy.target_refused += 1
        self.fail()

    def fail(self) -> None:
        """One side has reset the connection: the other one learns it, unless that is held back."""
        self._failed = True
        self._stop()
        self._settle()

    def _settle(self) -> None:
        """Close what can be closed by now."""
        if self._failed:
            # A reset of the server travels to the caller with the responses, and the other way
            # round: over a cut link neither arrives before the heal.
            if not self._proxy.response.held and self.client is not None:
                _reset(self.client)
                self.client = None
            if not self._proxy.request.held and self.server is not None:
                _reset(self.server)
                self.server = None
            if self.client is None and self.server is None:
                self._proxy.forget(self)
        elif self.request.done and self.response.done:
            self.close(reset=False)

    def _stop(self) -> None:
        self._wait(False)
        if self._cancel_deadline() and self.server is not None:
            self._loop.remove_writer(self.server)
        self.request.stop()
        self.response.stop()

    def close(self, *, reset: bool) -> None:
        """End both halves now, with a reset or in the ordinary way."""
        self._stop()
        for half in (self.client, self.server):
            if half is not None:
                _reset(half) if reset else half.close()
        self.client = self.server = None
        self._proxy.forget(self)


class LinkProxy:
    """The proxy of one directed link. All methods are for the event loop's thread.

    `target` and `listen` are socket addresses. `open()` raises OSError when it cannot listen.
    """

    def __init__(
        self,
        link: Link,
        target: Address,
        listen: Address,
        random: Random,
        connect_within_s: float = CONNECT_WITHIN_S,
    ) -> None:
        self.link = link
        self.target = target
        self.connect_within_s = connect_within_s
        self.loop = asyncio.get_running_loop()
        self.request = Shape("request", random)
        self.response = Shape("response", random)
        self.fault: LinkFault | None = None
        self.accepted = self.resets = self.target_refused = 0
        self._listen = listen
        self._listener: socket.socket | None = None
        self._reservation: socket.socket | None = None
        self._accepting = False
        self._retry: asyncio.TimerHandle | None = None
        # In the order of their arrival; a dict, so that one of them is forgotten in one step.
        self._connections: dict[Connection, None] = {}

    def open(self) -> int:
        """Listen; returns the port."""
        self._start_listening()
        return int(self._listen[1][1])

    def set(self, fault: LinkFault | None) -> None:
        """Take on `fault` in place of the present one (None: heal). Raises OSError: no listener."""
        self.fault = fault
        self.request.set(fault)
        self.response.set(fault)
        kind = fault.kind if fault else None
        if kind == "refuse":
            self._stop_listening()
        if kind in ("refuse", "reset"):
            self.resets += len(self._connections)
            for connection in list(self._connections):
                connection.close(reset=True)
        else:
            # A copy, since one that ends is taken out.
            for connection in list(self._connections):
                connection.refresh()
        if kind != "refuse" and self._listener is None:
            self._start_listening()

    def stats(self) -> LinkStats:
        """The counters now."""
        held = [connection.held_bytes() for connection in self._connections]
        return LinkStats(
            open=len(self._connections),
            accepted=self.accepted,
            reset=self.resets,
            target_refused=self.target_refused,
            request=_stream_stats(self.request, sum(request for request, _ in held)),
            response=_stream_stats(self.response, sum(response for _, response in held)),
            fault=self.fault,
        )

    def connections(self) -> list[Connection]:
        """The open ones, oldest first."""
        return list(self._connections)

    def close(self) -> None:
        """End everything, connections by reset."""
        if self._retry is not None:
            self._retry.cancel()
        for connection in list(self._connections):
            connection.close(reset=True)
        self._accept_if(False)
        for held in (self._listener, self._reservation):
            if held is not None:
                held.close()
        self._listener = self._reservation = None

    def resets_new(self) -> bool:
        """Whether new connections are to be reset."""
        return self.fault is not None and self.fault.kind == "reset"

    def forget(self, connection: Connection) -> None:
        """`connection` has ended."""
        self._connections.pop(connection, None)
        self._accept_if(True)

    def _bind(self) -> socket.socket:
        family, address = self._listen
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Not SO_REUSEADDR: with it, others could listen here while our socket does not.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
        bound.setblocking(False)
        self._listen = (family, bound.getsockname())
        return bound

    def _start_listening(self) -> None:
        listener = self._bind()
        listener.listen(BACKLOG)
        self._listener = listener
        # One socket at a time on the port, but for this moment: BSD may hand a connection to a
        # socket that is bound to the port and does not listen.
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None
        self._accept_if(True)

    def _stop_listening(self) -> None:
        if self._listener is None:
            return
        self._reservation = self._bind()
        self._accept_if(False)
        self._listener.close()
        self._listener = None

    def _accept_if(self, wanted: bool) -> None:
        if wanted != self._accepting and self._listener is not None:
            self._accepting = wanted
            if wanted:
                self.loop.add_reader(self._listener, self._accept)
            else:
                self.loop.remove_reader(self._listener)

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(BACKLOG):
            if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
                self._accept_if(False)
                return
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors: others may free some
                self._accept_if(False)
                self._retry = self.loop.call_later(0.1, self._accept_if, True)
                return
            self.accepted += 1
            client.setblocking(False)
            _no_delay(client)
            connection = Connection(self, client)
            self._connections[connection] = None
            connection.refresh()

    def _make_room(self) -> bool:
        for connection in self._connections:
            if connection.gave_up():
                connection.close(reset=True)
                return True
        return False


def _stream_stats(shape: Shape, held: int) -> StreamStats:
    since = shape.passed - shape.passed_before_fault if shape.faulty else 0
    return StreamStats(shape.passed, since, held, shape.abandoned)


def _reset(half: socket.socket) -> None:
    """Close with a TCP RST: lingering for no time at all throws away what was not sent."""
    half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    half.close()


def _no_delay(half: socket.socket) -> None:
    half.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
