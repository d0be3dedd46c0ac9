"""What does the CAP theorem say, and what does it cost when nothing is broken?

Claim.    A partition forces a choice. Raft (CP) stays linearizable, and who is cut off from the
          majority gets no answer. A store with R = W = 1 (AP) answers at every node, tells readers
          what is no longer so, and agrees with itself after the healing. Without a fault the choice
          is one of latency against consistency (PACELC).
Method.   A client beside each node. Put the nodes at a distance; cut them apart, 2|3; heal.
Control.  The AP store again, for whoever says that it is consistent, too: it answers everywhere,
          and its history is not linearizable. ("CA" is no third choice: links fail unasked.)
"""

from labs.harness.checkers import check_linearizable
from labs.harness.history import load
from labs.harness.lab.claims import CHECK_WITHIN_S, the_history_is_linearizable
from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.measures import alike
from labs.harness.lab.stage import Stage
from labs.harness.nemesis.shapes import minority_with
from labs.harness.testbed.description import kv_cluster
from labs.harness.workloads.neighbours import NeighbourWorkload, of_both_sides, unaware
from labs.harness.workloads.statistics import percentile

TICKS = {"KV_TICK_MS": "10"}
RAFT = {**TICKS, "KV_ELECTION_TICKS": "30", "KV_HEARTBEAT_TICKS": "4"}
ONE = {**TICKS, "KV_READ_QUORUM": "1", "KV_WRITE_QUORUM": "1", "KV_ANTI_ENTROPY_TICKS": "10",
       "KV_CONFLICTS": "last-write-wins"}  # fmt: skip
AVAILABLE, CONSISTENT = {"ap", "both"}, {"cp", "both"}  # what each says of itself
ONE_WAY_MS = 50.0  # far more than a busy machine takes for a write of its own


async def scenario(stage: Stage) -> None:
    name, nodes = stage.cluster.spec.name, list(stage.cluster.nodes)
    first = nodes[0] if name in AVAILABLE else await stage.primary()
    small, large = minority_with(first, nodes)
    clients = NeighbourWorkload(
        dict.fromkeys(small, "c1") | dict.fromkeys(large, "c2"), seed=stage.seed,
        consistency="eventual" if name in AVAILABLE else "linearizable",
        # Available is who answers, on a busy machine too: a long deadline is no merit of the store.
        deadline_ms=10_000 if name in AVAILABLE else 1_500,
    )  # fmt: skip
    async with stage.running(clients):
        await stage.require(lambda: min(map(clients.answered, nodes)) >= 10,
                            within_s=30, what="10 answers beside each node")
        await at_a_distance(stage, clients, name in AVAILABLE)
        await cut_apart(stage, clients, small, large)
        if name in AVAILABLE:
            clients.rate_per_s = 5  # beside each node: at times no write is on its way
            await agreement(stage)
    if name in CONSISTENT:
        the_history_is_linearizable(stage)


async def at_a_distance(stage: Stage, clients: NeighbourWorkload, available: bool) -> None:
    between = [link for link in stage.cluster.links if link.src in stage.cluster.nodes]
    apart = stage.nemesis.delay(between, time_ms=ONE_WAY_MS)
    async with stage.fault(apart, f"any two nodes {ONE_WAY_MS:g} ms apart, each way") as since:
        await stage.require(
            lambda: min(clients.answered(node, since, "write") for node in clients.beside) >= 5,
            within_s=20, what="5 writes beside each node")
        writes = [each.took_ms for each in clients.since(since, f="write") if each.answered]
    # What a busy machine adds is no wait for a node: the quickest one tells.
    least, median, trip = min(writes), percentile(writes, 50), 2 * ONE_WAY_MS
    stage.figures(write_ms=least)
    waits = "for no other node" if available else "for a round trip between nodes"
    stage.claim(f"Without a fault a write waits {waits}", (least < 0.95 * trip) == available,
                f"the quickest of {len(writes)} writes took {least:.1f} ms, the median "
                f"{median:.1f} ms; a round trip {trip:g} ms")


async def cut_apart(stage: Stage, clients: NeighbourWorkload, small: list[str],
                    large: list[str]) -> None:  # fmt: skip
    apart = stage.nemesis.partition([small, large], clients={"c1": small[0], "c2": large[0]})
    async with stage.fault(apart, f"cut: {' '.join(small)} c1 | {' '.join(large)} c2") as cut:
        await stage.require(lambda: all(len(clients.since(cut, node)) >= 15 for node in small),
                            within_s=20, what="15 operations beside each node of the small side")
        await stage.eventually(lambda: min(clients.answered(node, cut) for node in large) >= 15,
                               within_s=40, what="15 answers beside each node of the large side")
        here, there = await of_both_sides(stage, clients, cut, small, large,
                                          all_ended=stage.cluster.spec.name in AVAILABLE)
    answered, went_on = (sum(each.answered for each in side) for side in (here, there))
    stale = unaware(here, there) + unaware(there, here)
    stage.figures(answered=answered, asked=len(here), stale=stale)
    shares = f"{answered} of {len(here)} were answered at c1, {went_on} of {len(there)} at c2"
    if stage.cluster.spec.name in AVAILABLE:
        stage.claim("Cut apart, every node answers everybody",
                    answered == len(here) and went_on == len(there), shares)
    else:
        stage.claim("Cut off from the majority, a node answers nobody", not answered, shares)
        stage.claim("The majority goes on", went_on > 0, shares)
    if stage.cluster.spec.name not in CONSISTENT:
        result = check_linearizable(load(stage.history_path), timeout_s=CHECK_WITHIN_S)
        stage.claim("Some of the answers are no longer so", result.valid is False and stale > 0,
                    f"{stale} reads began after the other side had acknowledged a newer write of "
                    f"their key; the history is not linearizable")


async def agreement(stage: Stage) -> None:
    healed = stage.now_ns()
    done = await stage.eventually(lambda: alike(stage), within_s=40, what="all nodes have the same")
    took_s = (stage.now_ns() - healed) / 1e9
    stage.figures(agreed_s=took_s)
    stage.claim("Healed, all nodes come to agree, under load", bool(done),
                f"equal digests {took_s:.2f} s after the healing")


def answer(results: Results) -> str:
    cp, ap, both = (result.figures for result in results.values())
    return f"""
        When links fail, a replicated store refuses or says what is no longer so: CAP is about that
        choice. Raft refused. Cut off from the majority its nodes answered {cp["answered"]} of
        {cp["asked"]} operations, and the history stayed linearizable. The store that waits for one
        replica answered all {ap["asked"]} on that side, {ap["stale"]} reads of both sides with
        what the other side had replaced, and agreed with itself {ap["agreed_s"]:.2f} s after the
        healing: eventual consistency, the last write wins.

        "CA" is not on the menu, for partitions are not given up by choosing. Who promises both
        breaks one: the control answered all, told {both["stale"]} readers the past, and is not
        linearizable. Mostly there is no partition; then the choice is latency (PACELC): with
        {ONE_WAY_MS:g} ms between nodes a write took {cp["write_ms"]:.0f} ms or more by majority,
        {ap["write_ms"]:.1f} ms or more by one replica.
    """


LAB = Lab(
    name="cap", questions=(1,), scenario=scenario, answer=answer,
    question="What does the CAP theorem say about a replicated store?",
    variants=(
        Variant("CP: Raft", "holds", "a majority answers, or nobody",
                lambda nodes: kv_cluster(nodes, protocol="raft", environment=RAFT, name="cp")),
        Variant("AP: R = W = 1", "holds", "any one replica answers, the last write wins",
                lambda nodes: kv_cluster(nodes, protocol="quorum", environment=ONE, name="ap")),
        Variant("both, it says", "breaks", "the same store, held to linearizability as well",
                lambda nodes: kv_cluster(nodes, protocol="quorum", environment=ONE, name="both")),
    ),
    predictions=(
        Prediction("Two of five nodes are cut off. Will they serve reads if the store is CP?",
                   lambda results: results["CP: Raft"].figures["answered"] > 0,
                   "a linearizable read needs a majority as much as a write does."),
    ),
    follow_ups={
        "Is R + W > N not consistent?": "Regular, not linearizable: the later of two reads may "
            "miss an unacknowledged write that the earlier saw, unless reads write back (ABD).",
        "Which would you choose?": "Per operation: carts merge, balances do not. Some stores let "
            "each request name its quorum (?consistency=eventual, quorum, all).",
    },
    misses="CAP's availability is an answer from every live node, however late; ours has a "
           "deadline. Real partitions are partial, short, and often one-way.",
    comparison=(("answered on the cut-off side", "{answered} of {asked}"),
                ("write without a fault, at least", "{write_ms:.1f} ms")),
)
