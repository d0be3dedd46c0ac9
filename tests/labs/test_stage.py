"""What a scenario waits for, against nodes that say what they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from labs.harness.lab.stage import InvalidRun, Stage


class Saying:
    """A cluster whose nodes say, each time they are asked, what comes next; the last for good."""

    def __init__(self, *answers: dict[str, dict[str, Any] | None]) -> None:
        self._answers: Iterator[dict[str, dict[str, Any] | None]] = iter(answers)
        self._last = answers[-1]
        self.asked = 0

    async def statuses(self) -> dict[str, dict[str, Any] | None]:
        self.asked += 1
        return next(self._answers, self._last)


def stage_of(cluster: Any) -> Stage:
    unused: Any = None
    return Stage(cluster=cluster, recorder=unused, nemesis=unused, story=unused, result=unused,
                 directory=Path(), seed=1)  # fmt: skip


def leading(term: int, last_index: int, **matched: int) -> dict[str, Any]:
    peers = {node: {"match_index": index} for node, index in matched.items()}
    return {"role": "leader", "term": term, "last_index": last_index, "peers": peers}


FOLLOWING = {"role": "follower", "leader": "n1", "term": 2, "last_index": 9, "peers": {}}


async def test_it_is_followed_once_all_have_what_it_had_when_first_seen() -> None:
    """And not only named: n3 has heard of n1, and nothing from it. The load goes on meanwhile."""
    cluster = Saying(
        {"n1": leading(2, 7, n2=7, n3=4), "n2": FOLLOWING, "n3": FOLLOWING},
        {"n1": leading(2, 9, n2=9, n3=6), "n2": FOLLOWING, "n3": FOLLOWING},
        {"n1": leading(2, 11, n2=10, n3=7), "n2": FOLLOWING, "n3": FOLLOWING},
    )

    assert await stage_of(cluster).followed() == "n1"
    assert cluster.asked == 3


async def test_who_takes_over_meanwhile_must_be_followed_itself() -> None:
    """Indices of one leader say nothing of another's: its log may be shorter."""
    cluster = Saying(
        {"n1": leading(2, 7, n2=7, n3=4), "n2": FOLLOWING, "n3": FOLLOWING},
        {"n1": leading(2, 7, n2=7, n3=4), "n2": leading(3, 5, n1=5, n3=5), "n3": FOLLOWING},
        {"n1": FOLLOWING, "n2": leading(3, 5, n1=3, n3=5), "n3": None},
        {"n1": FOLLOWING, "n2": leading(3, 6, n1=5, n3=5), "n3": None},
    )

    assert await stage_of(cluster).followed() == "n2"
    assert cluster.asked == 4


async def test_a_leader_that_one_never_hears_makes_the_run_invalid() -> None:
    """What the experiment needs, and did not get, says nothing about the system."""
    cluster = Saying({"n1": leading(2, 7, n2=7, n3=4), "n2": FOLLOWING, "n3": FOLLOWING})

    with pytest.raises(InvalidRun, match="all follow"):
        await stage_of(cluster).followed(within_s=0.1)


class Load:
    """A workload that ends once all of `meeting` have been told to stop; `error`: then raised."""

    lateness_s = 0.0

    def __init__(self, meeting: asyncio.Barrier, error: Exception | None = None) -> None:
        self._meeting, self._error = meeting, error
        self.stopped = False

    async def start(self, *_: Any) -> None:
        pass

    async def stop(self) -> None:
        await self._meeting.wait()
        self.stopped = True
        if self._error:
            raise self._error


async def test_workloads_stop_together() -> None:
    """Stopped one after another, the last would go on until the first had its last answer."""
    meeting = asyncio.Barrier(3)
    loads = [Load(meeting), Load(meeting, RuntimeError("a bug of the load")), Load(meeting)]
    stage = stage_of(Mock())
    stage.story = Mock()

    async with asyncio.timeout(20):
        with pytest.raises(RuntimeError, match="a bug of the load"):
            async with stage.running(*loads):
                pass
    assert all(each.stopped for each in loads)
