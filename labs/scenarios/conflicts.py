"""The parts of lab-conflicts that need more than its page: what was lost, merged or refused.

Each claim is made of the history alone, by the checker that knows its kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from labs.harness.checkers import check_counter, check_linearizable, check_set
from labs.harness.history import History, Op, load
from labs.harness.lab.measures import alike
from labs.harness.workloads.carts import ConditionalShopper, DataTypeShopper, Shopper

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

LAST_WRITE_WINS = ("lww", "skewed")
PAIRS, SKEW_S = 5, 30
CARTS = [f"cart-{number}" for number in range(5)]
Items = Iterator[dict[str, int]]
SHOPPERS = {"crdt": DataTypeShopper, "cas": ConditionalShopper}


def one_for_each_cart() -> Items:
    """Items that no cart has had, one for each at a time."""
    return (dict(zip(CARTS, count(first), strict=False)) for first in count(0, len(CARTS)))


def part(stage: Stage, **names: str) -> History:
    """The operations of these kinds, under the names that a checker knows them by."""
    ops = [replace(op, f=names[op.f]) for op in load(stage.history_path).ops if op.f in names]
    return History(ops)


def acknowledged(stage: Stage, place: str, since_ns: int = 0) -> list[Op]:
    """The items that were put in from `place` since then, beyond doubt."""
    return [op for op in part(stage, add="add").ops
            if op.client == place and op.type == "ok" and op.invoke_ns >= since_ns]  # fmt: skip


async def settled(stage: Stage) -> None:
    """Wait until all nodes have the same."""
    if stage.cluster.spec.name == "cas":
        await stage.converged(within_s=20)
    else:
        await stage.require(lambda: alike(stage), within_s=20, what="all nodes have the same")


def nothing_is_lost(stage: Stage) -> None:
    """Of what was acknowledged; or what is, where the last write wins.

    Leaves the figures `lost` and `acknowledged`, both numbers of items.
    """
    result = check_set(part(stage, add="add", look="read"))
    done = len(acknowledged(stage, "c1")) + len(acknowledged(stage, "c2"))
    lost = len(result.stats["lost"])
    stage.figures(lost=lost, acknowledged=done)
    evidence = f"{lost} of {done} acknowledged items are in no cart"
    if stage.cluster.spec.name in LAST_WRITE_WINS:
        stage.claim("What one side was told is safe is gone", lost > 0, evidence)
    else:
        stage.claim("Healed, nothing that was acknowledged is lost", result, evidence)


def how_it_was_settled(stage: Stage, healed_ns: int) -> None:
    """What the store made of two writes, by its own way."""
    name, ops = stage.cluster.spec.name, part(stage, add="add", look="look").ops
    mine = [op for op in ops if op.f == "add" and op.client == "c1" and op.invoke_ns >= healed_ns]
    if name == "siblings":
        kept = [op.extra.get("siblings", 0) for op in mine]
        after = ops[-1].extra.get("siblings", 0)
        stage.figures(siblings=max(kept))
        stage.claim("Both are kept as siblings, until a client merges them",
                    len(kept) == len(CARTS) and min(kept) > 1 and after == 1,
                    f"the next shopper was given {min(kept)} siblings or more of each of "
                    f"{len(kept)} carts; after it wrote what it made of them, {after}")  # fmt: skip
    elif name == "crdt":
        result = check_counter(part(stage, increment="add", count="read"))
        counts = part(stage, increment="add", repeat="again", count="read").ops
        once, again = (sum(op.f == f and op.type == "ok" for op in counts)
                       for f in ("add", "again"))  # fmt: skip
        stage.figures(counted=counts[-1].output, increments=once, repeated=again)
        stage.claim("The counter is exact, whatever was repeated", result,
                    f"{once} increments, {again} of them sent again to the other side: it says "
                    f"{counts[-1].output}")  # fmt: skip
    elif name == "cas":
        refused = [op for op in mine if op.type == "fail" and "newer" in op.extra]
        carts_refused = {op.key for op in refused}
        stage.figures(refused=len(refused))
        stage.claim("A write that has not seen the newest is refused", carts_refused == {*CARTS},
                    f"c1 wrote what it had seen before the cut: {len(refused)} writes to "
                    f"{len(carts_refused)} carts were refused, and done again")  # fmt: skip


async def one_after_the_other(stage: Stage, client: Shopper, fast: str, other: str) -> None:
    """A client writes at `fast`, whose clock is ahead, sees its write at `other`, writes there.

    Only where the last write wins by true clocks it is not ahead. Leaves `overruled` and `pairs`.
    """

    async def one_pair(key: str, value: int) -> None:
        await client.write(key, value, fast)
        await stage.require(lambda: client.shows(key, value, other), within_s=20,
                            what=f"{other} shows what was written at {fast}")  # fmt: skip
        await client.write(key, value + 1, other)
        await settled(stage)
        await client.read(key, other)

    async with AsyncExitStack() as faults:
        if stage.cluster.spec.name != "lww":
            ahead = stage.nemesis.bump(fast, delta_ms=SKEW_S * 1_000)
            text = f"the clock of {fast} is {SKEW_S} s ahead"
            await faults.enter_async_context(stage.fault(ahead, text))
        for number in range(PAIRS):
            await one_pair(f"address-{number}", 2 * number)
    later_writes_stand(stage)


def later_writes_stand(stage: Stage) -> None:
    """The checker says so of all pairs."""
    history = part(stage, write="write", read="read")
    result = check_linearizable(history, "register", timeout_s=20)
    last = {op.key: op.value for op in history.ops if op.f == "write" and op.type == "ok"}
    reads = {op.key: op.output for op in history.ops if op.f == "read" and op.type == "ok"}
    overruled = sum(key in reads and reads[key] != value for key, value in last.items())
    stage.figures(overruled=overruled, pairs=len(last))
    stage.claim("A write replaces the one that its client had seen", result,
                f"{overruled} of {len(last)} later writes were overruled by the earlier one",
                control_breaks=True)  # fmt: skip
