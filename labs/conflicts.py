"""Two sides write the same key at once: how does a replicated store settle that?

Claim.    It depends on what the store may know. Last-write-wins keeps one and loses the other,
          acknowledged or not. Version vectors keep both as siblings for a client to merge. CRDTs
          merge by themselves. Compare-and-set lets one side go on and refuses the stale write.
Method.   Two clients put items into the same shopping carts on both sides of a partition; heal, go
          on, and look. Then set one node's clock ahead; a client writes there, sees its write at
          another node, and writes again there.
Control.  Last-write-wins with that clock: the later write is lost to the earlier one.
"""

import asyncio
from collections import Counter

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.nemesis.shapes import minority_with
from labs.harness.testbed.description import ClusterSpec, kv_cluster
from labs.harness.workloads.carts import PATIENT_MS, DataTypeShopper, Shopper
from labs.scenarios import conflicts as parts
from labs.scenarios.conflicts import CARTS, SKEW_S, Items, acknowledged

TICKS = {"KV_TICK_MS": "10"}
RAFT = {**TICKS, "KV_ELECTION_TICKS": "30", "KV_HEARTBEAT_TICKS": "4"}
ONE = {**TICKS, "KV_READ_QUORUM": "1", "KV_WRITE_QUORUM": "1", "KV_ANTI_ENTROPY_TICKS": "10"}
ROUNDS = 3  # of an item into each cart, on each side


async def scenario(stage: Stage) -> None:
    name, nodes = stage.cluster.spec.name, list(stage.cluster.nodes)
    first = await stage.primary() if name == "cas" else nodes[0]
    small, large = minority_with(first, nodes)
    shopper, items = parts.SHOPPERS.get(name, Shopper), parts.one_for_each_cart()
    one, two = shopper(stage, "c1", small[0]), shopper(stage, "c2", large[0])
    await stage.cluster.ready(20)
    async with one.client, two.client:
        await two.put_in(next(items))
        await parts.settled(stage)
        await one.look(CARTS)
        await two_sides(stage, one, two, [small, large], items)
        await together(stage, one, two, items)
        fast = await stage.primary() if name == "cas" else small[0]
        await parts.one_after_the_other(stage, two, fast, large[0])


async def two_sides(stage: Stage, one: Shopper, two: Shopper, sides: list[list[str]],
                    items: Items) -> None:
    needs_a_leader = stage.cluster.spec.name == "cas"

    async def shop(shopper: Shopper, since: int, rounds: int) -> int:
        for _ in range(rounds):
            await shopper.put_in(next(items))
            done = Counter(op.key for op in acknowledged(stage, shopper.place, since))
            if min(done[cart] for cart in CARTS) >= ROUNDS:
                break
        return done.total()

    apart = stage.nemesis.partition(sides, clients={"c1": one.node, "c2": two.node})
    small, large = (" ".join(side) for side in sides)
    async with stage.fault(apart, f"cut: {small} c1 | {large} c2") as cut:
        if needs_a_leader:  # one side waits in vain, the other until it has got one
            one.deadline_ms = two.deadline_ms = 500
        rounds = ROUNDS if needs_a_leader else 50
        here, there = await asyncio.gather(shop(one, cut, rounds), shop(two, cut, 50))
        one.deadline_ms = two.deadline_ms = PATIENT_MS
    stage.figures(small=here, large=there)
    stage.claim("One side alone acknowledges" if needs_a_leader else "Both sides acknowledge",
                there > 0 and (here == 0) == needs_a_leader,
                f"{here} items at c1, {there} at c2, into the same {len(CARTS)} carts")


async def together(stage: Stage, one: Shopper, two: Shopper, items: Items) -> None:
    await parts.settled(stage)
    healed = stage.now_ns()
    await one.put_in(next(items))  # on what it believes to be in them
    if isinstance(one, DataTypeShopper) and isinstance(two, DataTypeShopper):
        await asyncio.gather(one.count_again(two.node), two.count_again(one.node))
    await parts.settled(stage)
    await two.look(CARTS)
    parts.nothing_is_lost(stage)
    parts.how_it_was_settled(stage, healed)


def answer(results: Results) -> str:
    lww, siblings, crdt, cas, skewed = (result.figures for result in results.values())
    return f"""
        Last-write-wins does not settle a conflict, it hides one. Both sides of the cut were told
        "done" {lww["small"]} and {lww["large"]} times, and {lww["lost"]} of
        {lww["acknowledged"]} acknowledged items are gone. Nor is it the last write that wins: with
        one clock {SKEW_S} s ahead {skewed["overruled"]} of {skewed["pairs"]} writes lost to the
        one that the same client had made, and seen, before (true clocks: {lww["overruled"]}).

        Version vectors know which write had seen which. They kept up to {siblings["siblings"]}
        siblings and lost {siblings["lost"]} of {siblings["acknowledged"]}; a client has to merge
        them. A CRDT is that merge, decided beforehand: the sets lost {crdt["lost"]} of
        {crdt["acknowledged"]}, and the counter says {crdt["counted"]} after {crdt["increments"]}
        increments, {crdt["repeated"]} of which were sent a second time, to the other side.

        Compare-and-set avoids the conflict: one side acknowledged {cas["large"]} items, the cut-off
        one {cas["small"]}; healed, {cas["refused"]} writes based on old carts were refused and done
        again. Nothing is lost, and nothing written where there is no majority.
    """


def leaderless(nodes: int, name: str) -> ClusterSpec:
    conflicts = "last-write-wins" if name in parts.LAST_WRITE_WINS else "siblings"
    settings = {**ONE, "KV_CONFLICTS": conflicts}
    return kv_cluster(nodes, protocol="quorum", environment=settings, name=name)


LAB = Lab(
    name="conflicts", questions=(5,), scenario=scenario, answer=answer,
    question="Two sides write the same key at once. How does a replicated store settle that?",
    variants=(
        Variant("last write wins", "holds", "the greatest timestamp stays; true clocks",
                lambda nodes: leaderless(nodes, "lww")),
        Variant("siblings", "holds", "version vectors keep both, a client merges",
                lambda nodes: leaderless(nodes, "siblings")),
        Variant("CRDT", "holds", "sets and counters merge by themselves",
                lambda nodes: leaderless(nodes, "crdt")),
        Variant("compare-and-set", "holds", "Raft; a write names the version it has seen",
                lambda nodes: kv_cluster(nodes, protocol="raft", environment=RAFT, name="cas")),
        Variant("last write wins, skewed", "breaks", "the same, and one clock is ahead",
                lambda nodes: leaderless(nodes, "skewed")),
    ),
    predictions=(
        Prediction("Every clock is right. Does last-write-wins keep what was acknowledged?",
                   lambda results: results["last write wins"].figures["lost"] == 0,
                   "of two writes one stays, and whoever made the other was told it was safe."),
        Prediction("One clock is ahead. Can a client's later write lose to its own earlier one?",
                   lambda results: results["last write wins, skewed"].figures["overruled"] > 0,
                   "the store compares timestamps of two nodes, not what the client has seen."),
    ),
    follow_ups={
        "Then why does anybody use last-write-wins?": "It is cheap, needs no context from clients, "
            "and loses nothing where each key is written once (immutable values, caches).",
        "What does a CRDT cost?": "State that can't be forgotten (an entry per node, a text's "
            "tombstones, a name per repeatable increment), and only what merges: no unique names, "
            "no balance that must stay above zero; those need compare-and-set.",
        "Would hybrid logical clocks do?": "They mend the control, whose client had seen the "
            "earlier write. Of concurrent writes one is lost all the same.",
    },
    misses="Siblings also come from clients that drop the context; CRDTs in use ship deltas, not "
           "whole states; here all nodes share one machine's clock until one is set ahead.",
    comparison=(("acknowledged while cut, c1 and c2", "{small} and {large}"),
                ("acknowledged items lost", "{lost} of {acknowledged}"),
                ("later writes overruled", "{overruled} of {pairs}")),
)
