"""A core, a storage, a transport and a state machine that write down what is asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.chassis.clock import Clock
from services.chassis.driver import Driver
from services.chassis.metrics import Metrics
from services.chassis.telemetry import Telemetry, process_log
from services.chassis.transport import Counts
from services.protocols.core import Entry, NotLeader, ReadGrant, ReadRefusal, Ready


@dataclass(slots=True)
class Replicate:
    """The message of `FakeCore`."""

    src: str
    dst: str
    entries: list[Entry]


class FakeCore:
    """A leader of one node: everything commits at once, unless `hold` is set."""

    def __init__(self, node: str = "n1") -> None:
        self.node = node
        self.leader: str | None = node
        self.hold = False
        self.ticks = 0
        self.term = 1
        self.ready_now = Ready()
        self.entries: list[Entry] = []
        self.stepped: list[Any] = []
        self.compacted: list[int] = []
        self.ready_calls = 0
        self.step_error: Exception | None = None

    def propose(self, command: bytes) -> tuple[int, int]:
        if self.leader != self.node:
            raise NotLeader(self.leader)
        entry = Entry(len(self.entries) + 1, self.term, command)
        self.entries.append(entry)
        self.ready_now.persist.append(entry)
        self.ready_now.messages.append(Replicate(self.node, "n2", [entry]))
        if not self.hold:
            self.ready_now.committed.append(entry)
        return entry.index, entry.term

    def read(self, read_id: int, *, lease: bool = False) -> None:
        if self.leader is None:
            self.ready_now.reads.append(ReadRefusal(read_id, "n2"))
        elif not self.hold:
            self.ready_now.reads.append(ReadGrant(read_id, len(self.entries)))

    def step(self, message: Any) -> None:
        if self.step_error is not None:
            raise self.step_error
        self.stepped.append(message)

    def tick(self) -> None:
        self.ticks += 1

    def ready(self) -> Ready:
        self.ready_calls += 1
        ready, self.ready_now = self.ready_now, Ready()
        return ready

    def compact(self, index: int, data: bytes) -> None:
        self.compacted.append(index)

    def status(self) -> dict[str, Any]:
        return {"role": "leader", "term": self.term, "leader": self.leader}

    def check_invariants(self) -> None: ...


class Rig:
    """A driver between fakes; `story` is the order in which they were called."""

    def __init__(self, tmp_path: Path, clock: Clock | None = None, snapshot_entries: int = 100):
        self.story: list[str] = []
        self.wal_bytes = 0
        self.counts = Counts()
        self.core = FakeCore()
        self.fatal: list[BaseException] = []
        self.append_error: Exception | None = None
        self.apply_error: Exception | None = None
        self.batches: list[int] = []
        self.telemetry_path = tmp_path / "events.jsonl"
        self.clock = clock or Clock()
        log = process_log("n1", self.clock)
        self.telemetry = Telemetry("n1", self.clock, self.telemetry_path, log)
        self.driver = Driver(
            self.core,
            self,
            self,
            self.clock,
            self.telemetry,
            Metrics(),
            state_machine=self,
            tick_ms=10,
            election_ticks=20,
            snapshot_entries=snapshot_entries,
            on_fatal=self.fatal.append,
        )

    # storage
    def append(self, records: list[Any]) -> None:
        if self.append_error is not None:
            raise self.append_error
        self.batches.append(len(records))
        self.story.append("persist")

    # transport
    def send(self, message: Any, traceparents: Any = ()) -> None:
        self.story.append("send")

    def flush(self) -> None: ...

    # state machine
    def apply(self, index: int, command: bytes) -> Any:
        if self.apply_error is not None:
            raise self.apply_error
        self.story.append("apply")
        return f"reply {index}"

    def snapshot(self) -> bytes:
        return b"state"

    def restore(self, data: bytes) -> None:
        self.story.append(f"restore {data.decode()}")

    def digest(self) -> str:
        return "state"

    async def propose(self, command: bytes = b"x", within_s: float = 1.0) -> Any:
        deadline = asyncio.get_running_loop().time() + within_s
        reply = await self.driver.propose(command, deadline=deadline)
        self.story.append("reply")
        return reply

    async def read(self, *, lease: bool = False, within_s: float = 1.0) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        await self.driver.read(deadline=deadline, lease=lease)


async def until(condition: Callable[[], Any], within_s: float = 10.0) -> None:
    """Wait until `condition()` is true; AssertionError after `within_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not condition():
        assert loop.time() < deadline, f"not within {within_s} s"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def rig(tmp_path: Path, **settings: Any) -> AsyncIterator[Rig]:
    """A rig whose driver is started and, at the end, stopped."""
    made = Rig(tmp_path, **settings)
    made.driver.start()
    try:
        yield made
    finally:
        made.driver.stop()
        made.telemetry.close()
