"""The parts of lab-traffic about cache, read replicas and queue: each claim can fail."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from labs.harness.lab.stage import InvalidRun
from labs.harness.lab.together import together
from labs.harness.workloads.messages import Ledger
from labs.harness.workloads.open_loop import Ended
from labs.scenarios import layers

CACHE, REPLICAS, QUEUE = "The cache takes", "Read replicas take", "A queue takes"
KEPT = "What the cache keeps"
SEEN = {"n1": 9, "n2": 8, "n3": 8}


class Stage:
    """What the judges need of a stage; `done`: when the consumer's effects were, ns."""

    def __init__(self, done: list[int] | None = None) -> None:
        self.cluster: Any = None
        self.held: dict[str, bool] = {}
        self._done = done or []

    def figures(self, **_: Any) -> None: ...

    def claim(self, text: str, holds: bool, _: str) -> None:
        self.held |= {
            each: holds for each in (CACHE, KEPT, REPLICAS, QUEUE) if text.startswith(each)
        }

    def protocol_events(self, _: str, __: str) -> list[dict[str, Any]]:
        return [{"at_ns": at_ns, "outcome": "ok"} for at_ns in self._done]

    async def eventually(self, condition: Any, **_: Any) -> Any:
        return await condition()


def sent(count: int, ok: int) -> list[Ended]:
    types = ["ok"] * ok + ["fail"] * (count - ok)
    return [Ended(each, 0, 1, None, None, "") for each in types]


@pytest.mark.parametrize(
    ("seen", "in_time", "held"),
    [
        (SEEN, (100, 60, 20), {CACHE: True, REPLICAS: True}),
        ({"n1": 30, "n2": 30, "n3": 30}, (100, 60, 20), {CACHE: False, REPLICAS: True}),
        (SEEN, (80, 60, 20), {CACHE: False, REPLICAS: True}),  # spared, and no help
        (SEEN, (90, 95, 20), {CACHE: False, REPLICAS: True}),
        ({"n1": 25, "n2": 0, "n3": 0}, (100, 60, 20), {CACHE: True, REPLICAS: False}),
        (SEEN, (100, 30, 20), {CACHE: True, REPLICAS: False}),
    ],
)
def test_each_layer_must_take_its_share_and_be_of_use(
    seen: dict[str, int], in_time: tuple[int, ...], held: dict[str, bool]
) -> None:
    stage: Any = Stage()
    layers.judge_reads(stage, [sent(100, ok) for ok in in_time], seen, "n1")

    assert stage.held == held


@pytest.mark.parametrize(
    ("hit", "collapsed", "miss", "held"),
    [(70, 5, 25, True), (0, 54, 46, False), (30, 30, 40, False)],
)
def test_single_flight_alone_is_no_cache(hit: int, collapsed: int, miss: int, held: bool) -> None:
    """With a time to live of a millisecond half of the reads are spared all the same."""
    stage: Any = Stage()
    layers.judge_hits(stage, {"hit": hit, "collapsed": collapsed, "miss": miss, "bypass": 0})

    assert stage.held == {KEPT: held}


def test_what_the_cache_had_before_the_spike_shows_nothing() -> None:
    """Neither a share of nothing, nor of the one read that the leader happened to get."""
    spikes = [sent(100, ok) for ok in (100, 60, 20)]
    for seen in ({"n1": 0, "n2": 0, "n3": 0}, {"n1": 1, "n2": 0, "n3": 0}):
        stage: Any = Stage()
        with pytest.raises(InvalidRun, match="before the spike"):
            layers.judge_reads(stage, spikes, seen, "n1")


@pytest.mark.parametrize(
    ("last", "at_ease"),
    [(["ok"] * 5, True), (["ok"] * 4, False), (["ok"] * 5 + ["fail"], False)],
)
def test_who_refuses_everything_is_not_at_ease(last: list[str], at_ease: bool) -> None:
    """A leader that leads no more, a worker that is down: their 0 % would pass for a result."""
    load: Any = SimpleNamespace(ended=[Ended(each, 0, 1, None, None, "") for each in last])

    assert layers.at_ease(load) is at_ease


@pytest.mark.parametrize(
    ("applied", "done_ns", "accepted", "at_once", "holds"),
    [
        (["a", "b", "c"], [1, 2, 9], 3, 1, True),
        (["a", "b"], [1, 9], 3, 1, False),  # one is lost
        (["a", "b", "c", "c"], [1, 2, 8, 9], 3, 1, False),  # one is done twice
        (["a", "b", "c"], [1, 2, 3], 3, 1, False),  # there was no backlog: no spike for the worker
        (["a", "b", "c"], [1, 2, 9], 2, 1, False),  # not accepted in time
        (["a", "b", "c"], [1, 2, 9], 3, 2, False),  # and without a queue it would do as well
    ],
)
async def test_a_queue_must_accept_and_lose_nothing(
    monkeypatch: pytest.MonkeyPatch,
    applied: list[str],
    done_ns: list[int],
    accepted: int,
    at_once: int,
    holds: bool,
) -> None:
    async def read_ledger(*_: Any) -> Ledger:
        return Ledger({"customer": applied})

    monkeypatch.setattr(layers, "read_ledger", read_ledger)
    stage: Any = Stage(done_ns)
    orders: Any = SimpleNamespace(
        accepted={"a", "b", "c"}, since=lambda begin, end: sent(3, accepted)
    )
    await layers.judge_orders(stage, orders, sent(3, at_once), (0, 5))

    assert stage.held == {QUEUE: holds}


async def test_the_first_failure_of_parts_side_by_side_ends_the_others() -> None:
    """An invalid run is known as one, and nothing goes on behind the next part's back."""
    ended = asyncio.Event()

    async def goes_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        raise InvalidRun("never came about")

    with pytest.raises(InvalidRun, match="never came about"):
        await together(goes_on(), fails())
    assert ended.is_set()


async def test_interrupted_they_undo_what_they_did() -> None:
    """Ctrl-C reaches both; that one has ended does not interrupt what the other undoes."""
    began, undone = asyncio.Event(), asyncio.Event()

    async def ends() -> None:
        await asyncio.Event().wait()

    async def undoes() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            undone.set()

    both = asyncio.create_task(together(ends(), undoes()))
    await began.wait()
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert undone.is_set()
