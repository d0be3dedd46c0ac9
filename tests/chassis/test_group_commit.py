"""Group commit: what gathers while a batch is on its way goes out together, and soon."""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.chassis.clock import Clock
from services.chassis.codec import Frame
from tests.chassis.fakes import Replicate, Rig, rig, until


async def iterations(count: int = 5) -> None:
    """Let the event loop go round; each would have been a batch of its own."""
    for _ in range(count):
        await asyncio.sleep(0)


async def propose_apart(r: Rig, count: int) -> list[asyncio.Task[object]]:
    """`count` proposals, each in an iteration of its own."""
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(r.propose()))
        await iterations()
    return tasks


def commit_all(r: Rig) -> None:
    """A frame arrives that commits everything."""
    r.core.ready_now.committed.extend(r.core.entries[r.driver.applied_index :])
    r.driver.receive(Frame("n2", [], [Replicate("n2", "n1", [])]))


async def test_the_answer_takes_along_what_gathered(tmp_path: Path) -> None:
    """One fdatasync for the first proposal, one for the five that came before it was applied."""
    slow = Clock()
    slow.set(rate=0.01)  # a tick a second: none comes in between
    async with rig(tmp_path, clock=slow) as r:
        r.core.hold = True
        first = await propose_apart(r, 1)
        rest = await propose_apart(r, 5)
        assert r.batches == [1]

        commit_all(r)
        await asyncio.gather(*first)
        assert r.batches == [1, 5]

        commit_all(r)
        await asyncio.gather(*rest)


async def test_who_is_alone_does_not_wait(tmp_path: Path) -> None:
    """With nothing on its way a proposal is a batch at once."""
    slow = Clock()
    slow.set(rate=0.01)
    async with rig(tmp_path, clock=slow) as r:
        for _ in range(3):
            await r.propose()

        assert r.batches == [1, 1, 1]


async def test_a_tick_takes_it_along_when_no_answer_comes(tmp_path: Path) -> None:
    """The follower is gone: the next proposals are persisted and sent all the same."""
    async with rig(tmp_path) as r:
        r.core.hold = True
        tasks = await propose_apart(r, 3)
        await until(lambda: sum(r.batches) == 3)
        commit_all(r)
        await asyncio.gather(*tasks)
