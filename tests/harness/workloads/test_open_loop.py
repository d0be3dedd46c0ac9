"""Open loops: arrivals keep coming whatever becomes of those before them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from labs.harness.history import Recorder, load
from labs.harness.testbed.simulation.cluster import new_loop
from labs.harness.workloads.open_loop import Answered, Drawn, OpenLoop, arrivals
from services.chassis.errors import ConnectionLost, ServiceError, Unavailable
from tests.services.cluster import until

Call = Callable[[Mapping[str, str]], Awaitable[Answered]]


class Load(OpenLoop):
    """Does `call` for every operation."""

    def __init__(self, call: Call, **settings: Any) -> None:
        super().__init__("c1", seed=1, **settings)
        self.call = call

    async def open(self, cluster: Any) -> None:
        pass

    async def close(self) -> None:
        pass

    def draw(self, random: Random) -> Drawn:
        return Drawn("work", "key", None, self.call)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


async def run(load: Load, path: Path, condition: Callable[[], Any]) -> None:
    with Recorder(path, time.monotonic_ns) as recorder:
        await load.start(None, recorder)  # type: ignore[arg-type]
        await until(condition)
        await load.stop()


async def test_a_late_loop_catches_up() -> None:
    """Intervals are measured from the plan: after a stall of 0.2 s what was planned comes at once,
    and says how late it is."""
    late: list[float] = []
    async for each in arrivals(lambda: 100.0, Random(1)):
        late.append(each)
        if len(late) == 5:
            time.sleep(0.2)  # noqa: ASYNC251 - the loop itself is to stand still
        if len(late) == 40:
            break

    assert max(late) > 0.15
    assert sum(each > 0.05 for each in late) >= 8, "nothing of the plan was dropped"


async def test_a_rate_may_change_while_it_runs() -> None:
    """Ten times the rate is ten times as many in the same plan."""
    rates, count, loop = [20.0], 0, asyncio.get_running_loop()
    began = loop.time()
    async for _ in arrivals(lambda: rates[-1], Random(1)):
        count += 1
        if count == 5:
            rates.append(2_000.0)
        if count == 200:
            break

    assert loop.time() - began < 3.0, "200 at the first rate would have taken ten seconds"


def in_virtual_time(measured: Callable[[], Coroutine[Any, Any, float]]) -> float:
    with asyncio.Runner(loop_factory=partial(new_loop, 7)) as runner:
        return runner.run(measured())


def test_a_spike_does_not_begin_with_the_next_arrival_at_the_usual_rate() -> None:
    """That one would have come after five minutes."""
    rates = [0.01]

    async def first_of_the_spike() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        loop.call_later(1, rates.append, 1_000.0)
        await anext(arrivals(lambda: rates[-1], Random(2)))
        return loop.time() - began

    assert 1 <= in_virtual_time(first_of_the_spike) < 1.05


@pytest.mark.parametrize("rate_per_s", [10.0, 1_000.0])
def test_a_steady_rate_is_met(rate_per_s: float) -> None:
    """How often it is asked changes nothing: 10,000 intervals vary by 1 % (standard deviation)."""

    async def ten_thousand() -> float:
        loop, count = asyncio.get_running_loop(), 0
        began = loop.time()
        async for _ in arrivals(lambda: rate_per_s, Random(1)):
            count += 1
            if count == 10_000:
                break
        return loop.time() - began

    assert in_virtual_time(ten_thousand) * rate_per_s == pytest.approx(10_000, rel=0.04)


async def test_arrivals_do_not_wait_for_answers(path: Path) -> None:
    """While nobody answers, more are sent; over the bound they are counted and not sent."""
    gate = asyncio.Event()

    async def hang(_: Mapping[str, str]) -> Answered:
        await gate.wait()
        return Answered("done", "n1")

    load = Load(hang, rate_per_s=500.0, in_flight_max=20)
    asyncio.get_running_loop().call_later(1.0, gate.set)
    await run(load, path, lambda: gate.is_set() and load.counts["ok"] >= 20)

    assert load.counts["unsent"] > 0
    ops = load_ops(path)
    assert len({op.process for op in ops[:20]}) == 20, "twenty at a time are twenty processes"
    assert ops[0].output == "done"
    assert ops[0].node == "n1"


@pytest.mark.parametrize(
    ("error", "kind"), [(Unavailable("no"), "fail"), (ConnectionLost("lost"), "info")]
)
async def test_a_definite_error_is_a_failure_and_no_other(
    path: Path, error: ServiceError, kind: str
) -> None:
    """`info` retires its process: nobody knows whether its operation is still under way."""

    async def refuse(_: Mapping[str, str]) -> Answered:
        raise error

    load = Load(refuse, rate_per_s=500.0)
    await run(load, path, lambda: load.counts[kind] >= 5)

    assert {each.type for each in load.ended} == {kind}
    assert load.ended[0].error == error.slug
    processes = [op.process for op in load_ops(path)]
    assert (len(set(processes)) == len(processes)) is (kind == "info")


async def test_what_changes_nothing_has_failed_when_nobody_answers(path: Path) -> None:
    """A read that got no answer is no riddle."""

    async def lose(_: Mapping[str, str]) -> Answered:
        raise ConnectionLost("lost")

    load = Load(lose, rate_per_s=500.0)
    load.changes_nothing = True
    await run(load, path, lambda: load.counts["fail"] >= 5)

    assert load.counts["info"] == 0
    assert load.slow_lately(10_000) == 0.0


async def test_each_operation_begins_a_trace_of_its_own(path: Path) -> None:
    """The ids that are sent are those of the history, before anybody has answered."""
    sent: list[Mapping[str, str]] = []

    async def note(headers: Mapping[str, str]) -> Answered:
        sent.append(headers)
        return Answered()

    load = Load(note, rate_per_s=500.0)
    await run(load, path, lambda: len(load.ended) >= 5)

    told = [(op.extra["trace_id"], op.extra["request_id"]) for op in load_ops(path)]
    assert sorted(told) == sorted(
        (headers["traceparent"][3:35], headers["X-Request-Id"]) for headers in sent
    )
    assert len(set(told)) == len(told)


def load_ops(path: Path) -> list[Any]:
    return load(path).ops
