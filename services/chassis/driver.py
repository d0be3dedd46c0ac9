"""Feeds a protocol core and carries out what it says: the one place where the order stands.

**Persist, then send, then apply, then reply** (`_carry_out`). Swap any two and something is lost:

- *send before persist*: n2 grants its vote to n1, crashes before the vote is on disk, restarts
  having forgotten it and grants n3 the same term: two leaders.
- *reply before persist* (the leader's own copy counts towards the quorum): the client has its
  answer, two of three nodes crash, and the quorum that is left never saw the write.
- *reply before apply*: the client reads what it has just written from the same node, and gets the
  old value.
- *apply before persist*: a reader sees a value that the crash then takes back.

*The exception* are messages that the core calls `early`, such as a Raft leader's new entries. They
say nothing about the leader's own disk, so the followers write to theirs while the leader writes
to its own, and a client waits for one fdatasync instead of two in a row (Ongaro's dissertation,
§10.2.1). The leader's copy still counts only when it is durable: answers from followers are read
after this batch is carried out. If the write fails, the node stops; the entry may be committed all
the same, which is why the client is told that the outcome is not known.

All that arrives in one iteration of the event loop (requests, frames, a tick) is one `ready()`,
hence one fdatasync; while that blocks, the next batch gathers in the sockets. Measured here, the
blocking call beats a thread at every load; it delays heartbeats by one fsync (p99 1 ms), so the
election timeout must stay far above the disk's.

*Group commit.* A proposal alone does not start a batch while an earlier one waits to be applied:
the answer that completes that one is about to come and takes along all that gathered meanwhile
(or the next tick does, when no answer comes). An fdatasync on every node and a frame on every link
cost the same for one entry as for fifty: measured, 16 clients get 1.45 times the writes, and one
client, who never has two in flight, waits no longer.

An exception in core, storage or state machine stops the node: a replica whose memory no longer
agrees with its disk must not go on voting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from services.chassis.clock import Clock
from services.chassis.codec import Frame
from services.chassis.errors import (
    InternalError,
    NotLeader,
    ServiceError,
    Unavailable,
)
from services.chassis.metrics import Metrics
from services.chassis.storage import Storage
from services.chassis.telemetry import TEXT_MAX, Telemetry, parse_traceparent
from services.chassis.transport import Transport
from services.chassis.waiters import Proposals, Reads, fail
from services.protocols import core as protocol

PROPOSALS_MAX = 10_000
READS_MAX = 10_000
ROUNDS_MAX = 16  # of ready() in one go, before the sockets get their turn
WAL_BYTES_MAX = 64 << 20  # a snapshot is due whatever the number of entries


class StateMachine(Protocol):
    """What committed commands are applied to. Deterministic: equal logs give equal states."""

    def apply(self, index: int, command: bytes) -> Any:
        """Carry out the command at `index`; returns the reply to its proposer."""
        ...

    def snapshot(self) -> bytes:
        """The whole state."""
        ...

    def restore(self, data: bytes) -> None:
        """Become the state that `snapshot` returned."""
        ...


class Driver:
    """Runs one core.

    Args:
        tick_ms: milliseconds of `clock` per tick of the core.
        election_ticks: after a pause of the process, at most this many missed ticks are made up.
        snapshot_entries: applied entries after which the log is compacted.
        on_fatal: told, once, what stopped the driver.
    """

    def __init__(
        self,
        core: protocol.Core,
        storage: Storage,
        transport: Transport,
        state_machine: StateMachine,
        clock: Clock,
        telemetry: Telemetry,
        metrics: Metrics,
        *,
        tick_ms: int,
        election_ticks: int,
        snapshot_entries: int,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.core = core
        self.applied_index = 0
        self.failed: BaseException | None = None
        self._storage = storage
        self._transport = transport
        self._state_machine = state_machine
        self._clock = clock
        self._telemetry = telemetry
        self._metrics = metrics
        self._tick_s = tick_ms / 1000
        self._election_ticks = election_ticks
        self._snapshot_entries = snapshot_entries
        self._snapshot_index = 0
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._running = False
        self._scheduled = False
        self._last_tick = 0.0
        self._tick_handle: asyncio.TimerHandle | None = None
        self._proposed_index = 0  # of the last proposal; `_batch_index`: of the last that went out
        self._batch_index = 0
        self._proposals = Proposals()
        self._reads = Reads()
        self._next_read_id = 0
        self._arrived: list[tuple[str, list[str], int]] = []  # frames that carry traces

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to tick."""
        self._running = True
        self._last_tick = self._clock.monotonic()
        self._schedule_tick()
        self._wake()

    def stop(self) -> None:
        """Tick no more; who still waits gets an indefinite error."""
        self._running = False
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._proposals.stop()
        self._reads.stop()

    def clock_changed(self) -> None:
        """The clock's rate was changed: the next tick is due at another moment."""
        if self._running:
            self._schedule_tick()

    def _fatal(self, exc: BaseException) -> None:
        if self.failed is None:
            self.failed = exc
            self.stop()
            self._on_fatal(exc)

    # ------------------------------------------------------------------ inputs

    async def propose(self, command: bytes, *, deadline: float, traceparent: str = "") -> Any:
        """The reply of `apply` to this command.

        `deadline`: on the event loop's clock. Raises NotLeader, Unavailable (definite) or
        DeadlineExceeded, InternalError (indefinite: the entry may be committed yet).
        """
        self._require_running()
        if len(self._proposals) >= PROPOSALS_MAX:
            raise Unavailable(f"{PROPOSALS_MAX} proposals are in flight")
        index, term = self._ask_core(lambda: self.core.propose(command))
        self._proposed_index = index
        if self.applied_index >= self._batch_index:
            self._wake()  # nothing is on its way: see "Group commit"
        return await self._proposals.wait(index, term, deadline, traceparent)

    async def read(self, *, deadline: float, lease: bool = False) -> None:
        """Returns when a linearizable read may be served from the state machine.

        Errors are definite, a missed deadline included: a read changes nothing.
        """
        self._require_running()
        if len(self._reads) >= READS_MAX:
            raise Unavailable(f"{READS_MAX} reads are in flight")
        if lease:
            # A process that was paused must notice before it trusts a lease: its timers may not
            # have fired yet, and meanwhile another leader may have been elected.
            self._advance_ticks()
            self._require_running()
        self._next_read_id += 1
        read_id = self._next_read_id
        self._ask_core(lambda: self.core.read(read_id, lease=lease))
        self._wake()
        await self._reads.wait(read_id, deadline)

    def receive(self, frame: Frame) -> None:
        """A frame from a peer."""
        if not self._running:
            return
        for message in frame.messages:
            name = type(message).__name__
            if message.src != frame.src or message.dst != self.core.node:
                self._transport.counts.dropped["misrouted"] += 1
                continue
            self._transport.counts.received[name] += 1
            try:
                self.core.step(message)
            except Exception as exc:
                self._fatal(exc)
                return
        if frame.traceparents:
            self._arrived.append((frame.src, frame.traceparents, self._clock.true_monotonic_ns()))
        self._wake()

    def _ask_core(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except protocol.NotLeader as exc:
            raise _not_leader(exc.leader) from None
        except protocol.Busy as exc:
            raise Unavailable(str(exc) or "too much is in flight") from None
        except Exception as exc:
            self._fatal(exc)
            raise InternalError("the node failed and is stopping") from exc

    def _require_running(self) -> None:
        if not self._running:
            raise Unavailable("the node is not running")

    # ------------------------------------------------------------------ time

    def _schedule_tick(self) -> None:
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        left_s = self._last_tick + self._tick_s - self._clock.monotonic()
        self._tick_handle = self._loop.call_later(max(0.0, left_s) / self._clock.rate, self._tick)

    def _tick(self) -> None:
        self._advance_ticks()
        if self._running:
            self._schedule_tick()
            self._wake()

    def _advance_ticks(self) -> None:
        """Tell the core of the time that has passed, in ticks.

        After a pause (SIGSTOP, a swapped-out machine) the missed ticks are made up, for a leader
        has to see that its lease is over. But no more than `election_ticks`: that is enough for
        any lease, and a follower that got a minute's worth at once would campaign several times
        before it reads the heartbeats that wait in its sockets.
        """
        due = int((self._clock.monotonic() - self._last_tick) / self._tick_s)
        if due <= 0:
            return
        self._last_tick += due * self._tick_s
        if due > self._election_ticks:
            late_ms = round(due * self._tick_s * 1000)
            self._telemetry.emit({"event": "paused", "kind": "process", "late_ms": late_ms})
        try:
            for _ in range(min(due, self._election_ticks)):
                self.core.tick()
        except Exception as exc:
            self._fatal(exc)

    # ------------------------------------------------------------------ outputs

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if not self._running:
            return
        self._batch_index = self._proposed_index
        try:
            for _ in range(ROUNDS_MAX):
                ready = self.core.ready()
                if not ready:
                    break
                self._carry_out(ready)
            else:
                self._wake()
        except Exception as exc:
            self._fatal(exc)
            return
        if self._arrived:
            self._tell_replication()

    def _carry_out(self, ready: protocol.Ready) -> None:
        # The order of these steps is the promise of the whole node: see the module.
        for message in ready.messages[: ready.early]:
            self._transport.send(message, self._traceparents(message))
        if ready.early:
            self._transport.flush()

        if ready.persist:
            started = self._clock.true_monotonic()
            self._storage.append(ready.persist)
            self._metrics.synchronize.observe(self._clock.true_monotonic() - started)

        for message in ready.messages[ready.early :]:
            self._transport.send(message, self._traceparents(message))
        self._transport.flush()

        if ready.restore is not None:
            self._restore(ready.restore)
        done = [answer for entry in ready.committed for answer in self._apply(entry)]

        for future, reply in done:
            if isinstance(reply, ServiceError):
                fail(future, reply)
            elif not future.done():
                future.set_result(reply)
        self._answer_reads(ready.reads)

        for event in ready.events:
            self._telemetry.emit({"event": event.name, "kind": "protocol", **event.fields})
        self._compact_if_due()

    def _restore(self, snapshot: protocol.Snapshot) -> None:
        self._state_machine.restore(snapshot.data)
        self.applied_index = self._snapshot_index = snapshot.last_index
        self._proposals.replaced(snapshot.last_index)

    def _apply(self, entry: protocol.Entry) -> list[tuple[asyncio.Future[Any], Any]]:
        assert entry.index > self.applied_index, (entry.index, self.applied_index)
        reply = self._state_machine.apply(entry.index, entry.command) if entry.command else None
        self.applied_index = entry.index
        return self._proposals.committed(entry, reply)

    def _answer_reads(self, answers: list[protocol.ReadGrant | protocol.ReadRefusal]) -> None:
        for answer in answers:
            if isinstance(answer, protocol.ReadGrant):
                self._reads.grant(answer)
            else:
                self._reads.refuse(answer, _not_leader(answer.leader))
        self._reads.applied(self.applied_index)

    def _compact_if_due(self) -> None:
        entries = self.applied_index - self._snapshot_index
        too_long = self._storage.wal_bytes > WAL_BYTES_MAX and entries >= 100
        if entries >= self._snapshot_entries or too_long:
            started = self._clock.true_monotonic()
            data = self._state_machine.snapshot()
            self.core.compact(self.applied_index, data)
            self._snapshot_index = self.applied_index
            duration_us = round((self._clock.true_monotonic() - started) * 1e6)
            self._telemetry.emit(
                {
                    "event": "snapshot",
                    "kind": "storage",
                    "index": self.applied_index,
                    "bytes": len(data),
                    "duration_us": duration_us,
                }
            )

    # ------------------------------------------------------------------ telling

    def _traceparents(self, message: Any) -> list[str]:
        """Of the client requests whose entries this message carries, as far as they began here."""
        entries = getattr(message, "entries", None)
        if not entries or not self._telemetry.enabled:
            return []
        return self._proposals.traceparents(entries)

    def _tell_replication(self) -> None:
        """A span per client request whose entries came by a frame and are persisted now."""
        arrived, self._arrived = self._arrived, []
        now = self._clock.true_monotonic_ns()
        for src, traceparents, since in arrived:
            for header in traceparents:
                traceparent, _, request_id = header.partition(" ")
                parent = parse_traceparent(traceparent)
                if parent is None:
                    continue
                self._telemetry.emit(
                    {
                        "event": "replicate",
                        "kind": "span",
                        "trace_id": parent.trace_id,
                        "span_id": self._telemetry.new_span_id(),
                        "parent_span_id": parent.span_id,
                        "request_id": request_id[:TEXT_MAX],
                        "peer": src,
                        "duration_us": (now - since) // 1000,
                        "outcome": "ok",
                    }
                )

    def status(self) -> dict[str, Any]:
        """The core's status with what the driver adds."""
        return {**self.core.status(), "applied_index": self.applied_index}


def _not_leader(leader: str | None) -> NotLeader | Unavailable:
    if leader is None:
        return Unavailable("no leader is known", leader=None)
    return NotLeader(f"ask {leader}", leader=leader)
