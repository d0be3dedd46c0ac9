"""Drives a core that keeps no log and answers each request by its number.

**Persist, then send, then reply**: the order of `driver.py`, for the same reasons; only there is
nothing to apply, for what a replica keeps of a key is the core's own.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from services.chassis.core_driver import CoreDriver
from services.chassis.errors import DeadlineExceeded, InternalError, ServiceError, Unavailable
from services.chassis.waiters import Deadlines, fail
from services.protocols.core import Snapshot
from services.protocols.leaderless import Ready

OPERATIONS_MAX = 10_000
WAL_BYTES_MAX = 16 << 20


class AnsweringDriver(CoreDriver):
    """Runs one core; see `CoreDriver` for the arguments. `write_late`, `read_late`: what a client
    is told whose deadline has passed."""

    write_late: ClassVar[str]
    read_late: ClassVar[str]

    def __init__(self, core: Any, *parts: Any, **how: Any) -> None:
        super().__init__(core, *parts, **how)
        self._next = 0
        self._wal_bytes_max = WAL_BYTES_MAX
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writes: set[int] = set()
        self._write_deadlines = Deadlines(lambda: DeadlineExceeded(self.write_late))
        self._read_deadlines = Deadlines(lambda: Unavailable(self.read_late))

    @abstractmethod
    def _answer(self, future: asyncio.Future[Any], reply: Any) -> None:
        """Give a reply of the core to whoever waits for it."""

    def _number(self) -> int:
        """That of a new request."""
        self._next += 1
        return self._next

    async def _operate(
        self, request: int, ask: Callable[[], None], deadline: float, *, writes: bool
    ) -> Any:
        """What `_answer` gives for the `request` that `ask` puts to the core."""
        self._require_running()
        if len(self._waiting) >= OPERATIONS_MAX:
            raise Unavailable(f"{OPERATIONS_MAX} operations are in flight")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[request] = future
        try:
            self._ask_core(ask)
            self._wake()
            if writes:
                self._writes.add(request)
            (self._write_deadlines if writes else self._read_deadlines).add(deadline, future)
            return await future
        finally:
            del self._waiting[request]
            self._writes.discard(request)

    def _carry_out(self, ready: Ready) -> None:
        if ready.persist:
            started = self._clock.true_monotonic()
            self._storage.append(ready.persist)
            self._metrics.synchronize.observe(self._clock.true_monotonic() - started)
        for message in ready.messages:
            self._transport.send(message)
        self._transport.flush()
        for reply in ready.replies:
            future = self._waiting.get(reply.request)
            if future is not None and not future.done():
                self._answer(future, reply)
        for event in ready.events:
            self._telemetry.emit({"event": event.name, "kind": "protocol", **event.fields})
        if self._storage.wal_bytes > self._wal_bytes_max:
            # The whole state in place of all its changes. Next when as much again has been added:
            # a state above the limit would else be written anew in every turn, at every tick.
            self._storage.append([Snapshot(0, 0, b""), *self.core.image()])
            self._wal_bytes_max = max(WAL_BYTES_MAX, 2 * self._storage.wal_bytes)

    def _answer_all(self) -> None:
        self._write_deadlines.cancel()
        self._read_deadlines.cancel()
        for request, future in self._waiting.items():
            error: ServiceError = Unavailable("the node is stopping")
            if request in self._writes:
                error = InternalError("the node is stopping; the outcome is not known")
            fail(future, error)

    def not_ready(self) -> str | None:
        return None

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.core.status()
        return status
