"""The driver: the order, the batching, deadlines, overwritten entries, and failing loudly."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.chassis.clock import Clock
from services.chassis.codec import Frame
from services.chassis.errors import (
    DeadlineExceeded,
    Indefinite,
    InternalError,
    NotLeader,
    ServiceError,
    Unavailable,
)
from services.chassis.storage import StorageError
from services.chassis.waiters import Proposals
from services.protocols.core import Entry, Event, ReadGrant, Snapshot
from services.protocols.primary_backup import PrimaryBackup
from tests.chassis.fakes import Replicate, rig, until


async def test_order(tmp_path: Path) -> None:
    """Persist before send before apply before reply."""
    async with rig(tmp_path) as r:
        assert await r.propose() == "reply 1"

    assert r.story == ["persist", "send", "apply", "reply"]


async def test_one_batch(tmp_path: Path) -> None:
    """All that arrives in one iteration of the loop is one batch: one fdatasync."""
    async with rig(tmp_path) as r:
        replies = await asyncio.gather(*(r.propose() for _ in range(50)))

    assert replies == [f"reply {i}" for i in range(1, 51)]
    assert r.batches == [50]


async def test_failing_fsync(tmp_path: Path) -> None:
    """A failing fsync stops the node: nothing is sent or applied, the client is told 'unknown'."""
    async with rig(tmp_path) as r:
        r.append_error = StorageError("cannot write: Input/output error")
        with pytest.raises(Indefinite):
            await r.propose()
        assert r.story == []
        assert r.fatal == [r.append_error]
        with pytest.raises(Unavailable, match="not running"):
            await r.propose()
        with pytest.raises(Unavailable, match="not running"):
            await r.read()


@pytest.mark.parametrize("where", ["step", "apply", "tick", "ready"])
async def test_failing_core(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the core or the state machine stops the node."""

    def fail(*_: Any) -> Any:
        raise AssertionError("impossible state")

    async with rig(tmp_path) as r:
        if where == "apply":
            r.apply_error = AssertionError("impossible state")
            with pytest.raises(InternalError):
                await r.propose()
        else:
            monkeypatch.setattr(r.core, where, fail)
            message = Replicate("n2", "n1", [])
            r.driver.receive(Frame("n2", [], [message]))
            await until(lambda: r.fatal)

    assert str(r.fatal[0]) == "impossible state"
    assert len(r.fatal) == 1


async def test_deadline(tmp_path: Path) -> None:
    """A deadline that passes after proposing is indefinite: the entry may be committed yet."""
    async with rig(tmp_path) as r:
        r.core.hold = True
        with pytest.raises(DeadlineExceeded) as caught:
            await r.propose(within_s=0.02)
        assert caught.value.definite is False
        # Committed later: nobody waits any more, and nothing breaks.
        r.core.ready_now.committed.append(r.core.entries[0])
        r.driver._wake()
        await until(lambda: r.driver.applied_index == 1)


async def test_overwritten(tmp_path: Path) -> None:
    """Definite: the entry's index was committed with another term."""
    async with rig(tmp_path) as r:
        r.core.hold = True
        waiting = asyncio.create_task(r.propose())
        await until(lambda: r.core.entries)
        r.core.ready_now.committed.append(Entry(1, 2, b"other"))
        r.driver._wake()
        with pytest.raises(Unavailable, match="overwritten") as caught:
            await waiting

    assert caught.value.definite is True


async def test_overwritten_where_commits_are_not_final(tmp_path: Path) -> None:
    """Of primary and backups: whoever still has the entry may be promoted, and bring it back."""
    async with rig(tmp_path) as r:
        r.driver._proposals = Proposals(final=False)
        r.core.hold = True
        waiting = asyncio.create_task(r.propose())
        await until(lambda: r.core.entries)
        r.core.ready_now.committed.append(Entry(1, 2, b"other"))
        r.driver._wake()
        with pytest.raises(Indefinite, match="overwritten"):
            await waiting
    assert Proposals(final=PrimaryBackup.commits_are_final)._overwritten is DeadlineExceeded


async def test_same_index_twice(tmp_path: Path) -> None:
    """Two clients may wait for one index in different terms: each gets its own outcome."""
    async with rig(tmp_path) as r:
        r.core.hold = True
        old = asyncio.create_task(r.propose())
        await until(lambda: r.core.entries)
        r.core.entries.clear()  # truncated by another leader; then leader again in term 3
        r.core.term = 3
        new = asyncio.create_task(r.propose())
        await until(lambda: r.core.entries)
        r.core.ready_now.committed.append(r.core.entries[0])
        r.driver._wake()

        assert await new == "reply 1"
        with pytest.raises(Unavailable, match="overwritten"):
            await old


async def test_replaced_by_snapshot(tmp_path: Path) -> None:
    """When a snapshot takes the place of the log, what became of a proposal is not known."""
    async with rig(tmp_path) as r:
        r.core.hold = True
        waiting = asyncio.create_task(r.propose())
        await until(lambda: r.core.entries)
        r.core.ready_now.restore = Snapshot(5, 2, b"s5")
        r.core.ready_now.committed.append(Entry(6, 2, b"y"))
        r.driver._wake()
        with pytest.raises(Indefinite):
            await waiting

    assert r.story[-2:] == ["restore s5", "apply"]
    assert r.driver.applied_index == 6


async def test_not_leader(tmp_path: Path) -> None:
    """Not the leader: definite, with a hint; no leader known: unavailable."""
    async with rig(tmp_path) as r:
        r.core.leader = "n3"
        with pytest.raises(NotLeader) as caught:
            await r.propose()
        assert caught.value.leader == "n3"
        r.core.leader = None
        with pytest.raises(Unavailable, match="no leader"):
            await r.propose()
        with pytest.raises(NotLeader) as refused:
            await r.read()
        assert refused.value.leader == "n2"


async def test_read_waits_for_its_index(tmp_path: Path) -> None:
    """A read is served when its index has been applied, not when it is granted."""
    async with rig(tmp_path) as r:
        r.core.hold = True
        reading = asyncio.create_task(r.read())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        r.core.ready_now.reads.append(ReadGrant(1, 2))
        r.driver._wake()
        r.core.ready_now.committed.append(Entry(1, 1, b"x"))
        await until(lambda: r.driver.applied_index == 1)
        assert not reading.done()
        r.core.ready_now.committed.append(Entry(2, 1, b""))  # a no-op counts, and is not applied
        r.driver._wake()
        await reading

    assert r.story.count("apply") == 1


async def test_read_deadline(tmp_path: Path) -> None:
    """A read that is not granted in time is a definite error: it changed nothing."""
    async with rig(tmp_path) as r:
        r.core.hold = True
        with pytest.raises(Unavailable) as caught:
            await r.read(within_s=0.02)

    assert caught.value.definite is True


async def test_stop(tmp_path: Path) -> None:
    """Who still waits when the node stops gets an indefinite error at once."""
    async with rig(tmp_path) as r:
        r.core.hold = True
        waiting = asyncio.create_task(r.propose(within_s=30))
        await until(lambda: r.core.entries)
        r.driver.stop()
        with pytest.raises(InternalError):
            await waiting


async def test_cancelled_client(tmp_path: Path) -> None:
    """A cancelled request leaves nothing behind; the entry is applied all the same."""
    async with rig(tmp_path) as r:
        r.core.hold = True
        waiting = asyncio.create_task(r.propose(within_s=30))
        await until(lambda: r.core.entries)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert len(r.driver._proposals) == 0
        r.core.ready_now.committed.append(r.core.entries[0])
        r.driver._wake()
        await until(lambda: "apply" in r.story)


async def test_snapshots(tmp_path: Path) -> None:
    """The log is compacted after every `snapshot_entries` applied entries."""
    async with rig(tmp_path, snapshot_entries=10) as r:
        for _ in range(25):
            await r.propose()

    assert r.core.compacted == [10, 20]


async def test_misrouted(tmp_path: Path) -> None:
    """Messages of another sender or for another node are dropped and counted."""
    async with rig(tmp_path) as r:
        good = Replicate("n2", "n1", [])
        messages = [Replicate("n3", "n1", []), Replicate("n2", "n9", []), good]
        r.driver.receive(Frame("n2", [], messages))

    assert r.core.stepped == [good]
    assert r.counts.dropped["misrouted"] == 2


async def test_events(tmp_path: Path) -> None:
    """The protocol's events become wide events; frames with traces become spans of their traces."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with rig(tmp_path) as r:
        r.core.ready_now.events.append(Event("become_leader", {"term": 7}))
        r.driver.receive(Frame("n2", [f"{trace} r-1", "rubbish"], []))
        await until(lambda: r.core.ready_calls > 1)
    told = r.telemetry_path.read_text()

    assert '"event":"become_leader","kind":"protocol","term":7' in told
    assert '"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"' in told
    assert '"parent_span_id":"00f067aa0ba902b7"' in told
    assert '"request_id":"r-1"' in told
    assert told.count('"event":"replicate"') == 1


class Machine:
    """True monotonic time, moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_pause(tmp_path: Path) -> None:
    """After a pause the missed ticks are made up before a lease is trusted, but not without end."""
    machine = Machine()
    async with rig(tmp_path, clock=Clock(machine, machine)) as r:
        machine.now += 0.055
        await r.read(lease=True)
        assert r.core.ticks == 5
        machine.now += 3600
        await r.read(lease=True)
        assert r.core.ticks == 5 + 20


async def test_drift_changes_the_tick_rate(tmp_path: Path) -> None:
    """Drift changes how often the core ticks; a bump of the wall clock does not."""
    machine = Machine()
    async with rig(tmp_path, clock=Clock(machine, machine)) as r:
        r.clock.set(offset_ms=3_600_000)
        r.driver._advance_ticks()
        assert r.core.ticks == 0
        r.clock.set(rate=2.0)
        r.driver.clock_changed()
        machine.now += 0.051
        r.driver._advance_ticks()
        assert r.core.ticks == 10


def test_errors_are_marked() -> None:
    """Every error class says whether it is definite, and no two share a slug."""
    seen: dict[str, type[ServiceError]] = {}

    def walk(kind: type[ServiceError]) -> None:
        for sub in kind.__subclasses__():
            if sub.slug != "error":
                assert seen.setdefault(sub.slug, sub) is sub
            walk(sub)

    walk(ServiceError)
    assert {"not-leader", "deadline-exceeded", "key-not-found"} <= set(seen)
