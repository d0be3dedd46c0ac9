"""One direction of one connection: bytes read from `source` reach `sink`, in order.

    source ── recv ──▶ queue of (due, bytes) ──▶ send ── sink
                 ▲                          ▲
        not while held, nor full     not while held, nor before due

Plain non-blocking sockets and the loop's readers and writers, rather than transports: a transport
goes on emptying its own write buffer after the link was cut, and those bytes would cross the cut.
Here a held stream neither reads nor writes from the very step on in which the fault was set.

The queue is bounded: a full one stops the reading, the kernel's window closes, the sender waits.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from fcntl import ioctl
from struct import unpack
from termios import FIONREAD
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable
    from random import Random

    from labs.harness.links.fault import LinkFault, StreamName

READ_BYTES = 64 * 1024
QUEUE_BYTES = 256 * 1024
# A paced stream takes in at most this much time's worth of bytes ahead: more would be bufferbloat,
# and a heal would let it all go at once.
AHEAD_S = 0.05
SEGMENT_BYTES = 1448


class Shape:
    """What the link's fault means for one stream; shared by all connections of the link."""

    def __init__(self, name: StreamName, random: Random) -> None:
        self.name = name
        self.random = random
        self.held = False
        self.absorbs = False
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s = 0.0
        self.free_at = 0.0  # when the paced link has sent all that it has taken in
        self.faulty = False
        self.passed = 0
        self.passed_before_fault = 0
        self.abandoned = 0

    def set(self, fault: LinkFault | None) -> None:
        """Take on `fault`, or none of it if it is for the other stream."""
        self.faulty = fault is not None
        self.passed_before_fault = self.passed
        acts = fault if fault is not None and fault.on(self.name) else None
        kind = acts.kind if acts else None
        self.held = kind in ("blackhole", "drop", "clog")
        self.absorbs = kind == "clog"
        self.delay_s = acts.time_ms / 1000 if acts else 0.0
        self.jitter_s = acts.jitter_ms / 1000 if acts else 0.0
        self.bytes_per_s = acts.rate_kbit * 1000 / 8 if acts else 0.0
        self.free_at = 0.0

    def due(self, size: int, now: float) -> float:
        """When `size` bytes read `now` may be handed on (seconds, loop time; 0: at once)."""
        if self.bytes_per_s:
            self.free_at = max(self.free_at, now) + size / self.bytes_per_s
            return self.free_at
        if self.delay_s:
            return now + self.delay_s + self.random.uniform(-self.jitter_s, self.jitter_s)
        return 0.0

    def read_bytes(self) -> int:
        """How much to read at once: a slow link takes in small pieces."""
        if not self.bytes_per_s:
            return READ_BYTES
        return min(READ_BYTES, max(SEGMENT_BYTES, int(self.bytes_per_s * AHEAD_S / 2)))


class Stream:
    """Moves one direction. `on_done` when its end was handed on, `on_broken` on a reset."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        shape: Shape,
        on_done: Callable[[], None],
        on_broken: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._shape = shape
        self._on_done = on_done
        self._on_broken = on_broken
        self._source: socket.socket | None = None
        self._sink: socket.socket | None = None
        self._queue: deque[tuple[float, bytes | None]] = deque()  # None: the end
        self._queued = 0
        self._last_due = 0.0
        self._timer: TimerHandle | None = None
        self._reading = self._writing = False
        self.ended = False  # the source has said its end
        self.done = False  # and it was handed on

    def start(self, source: socket.socket, sink: socket.socket, first: bytes = b"") -> None:
        """Move bytes from now on; `first` was read from `source` before."""
        self._source, self._sink = source, sink
        if first:
            self._enqueue(first)
        self.refresh()

    def refresh(self) -> None:
        """The fault has changed: what it queued is due now, and reading goes by the new one."""
        if self._sink is None or self.done:
            return
        self._queue = deque((0.0, data) for _, data in self._queue)
        self._last_due = 0.0
        self._pump()

    def stop(self) -> None:
        """Leave both sockets alone, for good."""
        self._read_if(False)
        self._write_if(False)
        self._cancel_timer()
        self._source = self._sink = None

    def held_bytes(self) -> int:
        """Bytes that wait here, or (while held) in the kernel for us to read them."""
        waiting = 0
        if self._source is not None and self._shape.held:
            waiting = int(unpack("i", ioctl(self._source, FIONREAD, b"\0\0\0\0"))[0])
        return self._queued + waiting

    def _readable(self) -> None:
        assert self._source is not None
        try:
            data = self._source.recv(self._shape.read_bytes())
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._on_broken()
            return
        if not data:
            self.ended = True
        self._enqueue(data or None)
        self._pump()

    def _enqueue(self, data: bytes | None) -> None:
        # Never before what was read earlier: jitter may not reorder a byte stream.
        due = max(self._last_due, self._shape.due(len(data or b""), self._loop.time()))
        self._last_due = due
        self._queue.append((due, data))
        self._queued += len(data or b"")

    def _pump(self) -> None:
        """Hand on what is due; then decide what to wait for."""
        self._cancel_timer()
        blocked = False
        if not self._shape.held:
            while self._queue and not blocked:
                due, data = self._queue[0]
                if due and due > self._loop.time():
                    self._timer = self._loop.call_at(due, self._pump)
                    break
                if data is None:
                    self._finish()
                    return
                sent = self._send(data)
                if sent is None:
                    self._on_broken()
                    return
                blocked = sent < len(data)
                if blocked:
                    self._queue[0] = (0.0, data[sent:])
                else:
                    self._queue.popleft()
        self._write_if(blocked)
        self._read_if(self._may_read())

    def _send(self, data: bytes) -> int | None:
        assert self._sink is not None
        try:
            sent = self._sink.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return None
        self._queued -= sent
        self._shape.passed += sent
        return sent

    def _finish(self) -> None:
        assert self._sink is not None
        self._queue.clear()
        with contextlib.suppress(OSError):  # gone: the stream that reads from it will say so
            self._sink.shutdown(socket.SHUT_WR)
        self.done = True
        self.stop()
        self._on_done()

    def _may_read(self) -> bool:
        shape = self._shape
        if self.ended or self._queued >= QUEUE_BYTES or (shape.held and not shape.absorbs):
            return False
        ahead_s = shape.free_at - self._loop.time()
        if shape.bytes_per_s and ahead_s > AHEAD_S:
            if self._timer is None:  # nothing of ours is under way, other connections fill the link
                self._timer = self._loop.call_later(ahead_s - AHEAD_S / 2, self._pump)
            return False
        return True

    def _read_if(self, wanted: bool) -> None:
        if wanted != self._reading and self._source is not None:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._source, self._readable)
            else:
                self._loop.remove_reader(self._source)

    def _write_if(self, wanted: bool) -> None:
        if wanted != self._writing and self._sink is not None:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._sink, self._pump)
            else:
                self._loop.remove_writer(self._sink)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
