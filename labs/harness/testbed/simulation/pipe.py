"""One direction of one simulated connection: kernel buffers, wire and link proxy together.

Bytes wait here for their latency, or for the heal. They are delivered in order, and all that is due
at an instant at once. What an end's process wrote before it was killed still arrives; what it would
have written after does not.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from labs.harness.links.stream import Shape
    from labs.harness.testbed.simulation.connection import End
    from labs.harness.testbed.simulation.network import Route

# Of one direction: what kernels and the link proxy take in before the sender has to wait.
PIPE_BYTES = 512 << 10
INBOX_BYTES = 256 << 10

FIN: Literal["FIN"] = "FIN"
RST: Literal["RST"] = "RST"
Segment = bytes | Literal["FIN", "RST"]


class Pipe:
    """One direction. `queued`: bytes that were written and have not arrived."""

    __slots__ = (
        "_armed_ns",
        "_last_due",
        "_piece",
        "_queue",
        "_route",
        "_shape",
        "_simulation",
        "choked",
        "queued",
        "sink",
        "source",
    )

    def __init__(self, route: Route, shape: Shape, source: End | None, sink: End | None) -> None:
        self.source = source
        self.sink = sink
        self.queued = 0
        self.choked = False  # the inbox is full
        self._route = route
        self._shape = shape
        self._simulation = route.simulation
        self._queue: deque[tuple[int, Segment, int]] = deque()  # due, what, when it was written
        self._last_due = 0
        self._armed_ns = 0  # when `_arrive` will look (0: it will not)
        self._piece = 0  # of the head: bytes that a paced link carries now

    def send(self, segment: Segment, written_ns: int) -> None:
        """Take in what was written at `written_ns`, which may be after a stall, in the future."""
        queue = self._queue
        if type(segment) is bytes:
            self.queued += len(segment)
            if self.sink is None and self.source is not None:
                self.source.connection.wrote()
            if queue:
                due, last, before_ns = queue[-1]
                if before_ns == written_ns and type(last) is bytes and not self._piece:
                    queue[-1] = (due, last + segment, before_ns)  # one segment, as Nagle would
                    return
        due = written_ns + self._route.latency_ns()
        shape = self._shape
        if shape.delay_s:
            jitter_s = shape.random.uniform(-shape.jitter_s, shape.jitter_s)
            due += round((shape.delay_s + jitter_s) * 1e9)
        # Never before what was written earlier: jitter may not reorder a byte stream.
        self._last_due = due = max(due, self._last_due)
        queue.append((due, segment, written_ns))
        if len(queue) == 1:
            self._arm()

    def refresh(self) -> None:
        """The fault has changed, or there is a sink now: what waits goes on, in order."""
        self._last_due = self._piece = 0
        now_ns = self._simulation.now_ns
        self._queue = deque(
            (self._settled_due(max(now_ns, written_ns)), segment, written_ns)
            for _, segment, written_ns in self._queue
        )
        self._arm()

    def _settled_due(self, from_ns: int) -> int:
        due = max(self._last_due, from_ns + self._route.latency_ns())
        self._last_due = due
        return due

    def _arm(self) -> None:
        queue = self._queue
        if not queue or self._shape.held or self.sink is None:
            return
        if self._shape.bytes_per_s:
            self._pace()
        due = queue[0][0]
        if not self._armed_ns or due < self._armed_ns:
            now_ns = self._simulation.now_ns
            self._armed_ns = due = due if due > now_ns else now_ns
            self._simulation.at(due, self._arrive)

    def _pace(self) -> None:
        """Of the head, the link carries no more at once than its rate allows."""
        due, segment, written_ns = self._queue[0]
        if type(segment) is bytes and not self._piece:
            self._piece = min(len(segment), self._shape.read_bytes())
            carried_s = self._shape.due(self._piece, self._simulation.now_ns / 1e9)
            self._queue[0] = (max(due, round(carried_s * 1e9)), segment, written_ns)

    def _arrive(self) -> None:
        """Hand on what is due."""
        simulation, shape, sink = self._simulation, self._shape, self.sink
        now_ns = simulation.now_ns
        if now_ns < self._armed_ns:
            return  # armed anew meanwhile, for later
        self._armed_ns = 0
        if shape.held or sink is None:
            return
        queue = self._queue
        while queue and queue[0][0] <= now_ns:
            if sink.inbox_bytes >= INBOX_BYTES:
                self.choked = True
                return
            due, segment, written_ns = queue.popleft()
            rest = b""
            if type(segment) is bytes:
                if self._piece:
                    segment, rest = segment[: self._piece], segment[self._piece :]
                    self._piece = 0
                self.queued -= len(segment)
                shape.passed += len(segment)
            sink.receive(segment)
            if rest:
                queue.appendleft((due, rest, written_ns))
                break
        if queue:
            self._arm()
        if self.source is not None and self.source.writing_paused and self.queued < PIPE_BYTES:
            self.source.may_write()

    def unchoke(self) -> None:
        """There is room in the inbox again."""
        self.choked = False
        self._arm()

    def forget_after(self, now_ns: int) -> None:
        """The sender was killed at `now_ns`: what it would have written later was never written."""
        while self._queue and self._queue[-1][2] > now_ns:
            _, segment, _ = self._queue.pop()
            if type(segment) is bytes:
                self.queued -= len(segment)

    def clear(self) -> None:
        """Nobody will read it."""
        self._queue.clear()
        self.queued = 0
