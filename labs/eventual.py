"""How do replicas come to agree, how long does it take, and how stale are reads until then?

Claim.    Rumours bring a write to every node in a time that grows with log n, not n. What a rumour
          or a write has missed is mended by read repair (what is read), by hinted handoff (what was
          written while a node was away) and by anti-entropy (everything, a lost disk too). How
          stale reads are can be predicted from the one-way delays alone (PBS).
Method.   Follow writes through 5, 10 and 25 gossiping nodes. Then, with one repair at a time, wipe
          a replica, cut off another, heal, read half. Then read at a distance, after each write.
Control.  No repair at all: when all has come to rest, the replicas differ, and always will.
"""

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.testbed.description import ClusterSpec, kv_cluster
from labs.harness.workloads.at_a_node import AtANode
from labs.scenarios.eventual import KEYS, connected, repairs, rumours
from labs.scenarios.staleness import staleness

LAST = {"KV_CONFLICTS": "last-write-wins"}
GOSSIP = {**LAST, "KV_TICK_MS": "20", "KV_ANTI_ENTROPY_TICKS": "50", "KV_GOSSIP_STOP_AFTER": "4"}
NONE = {**LAST, "KV_TICK_MS": "10", "KV_REPLICAS": "3", "KV_READ_QUORUM": "1",
        "KV_WRITE_QUORUM": "2", "KV_READ_REPAIR": "off", "KV_HINTED_HANDOFF": "off",
        "KV_ANTI_ENTROPY_TICKS": "0"}  # fmt: skip
REPAIRS = {
    "read repair": {"KV_READ_REPAIR": "on"},
    "hinted handoff": {"KV_HINTED_HANDOFF": "on", "KV_SLOPPY": "on", "KV_WRITE_QUORUM": "3"},
    "anti-entropy": {"KV_ANTI_ENTROPY_TICKS": "10"},
    "no repair": {},
}


def gossip(size: int, fanout: int) -> ClusterSpec:
    return kv_cluster(size, protocol="gossip", name="gossip", clients=("c1",),
                      environment={**GOSSIP, "KV_GOSSIP_FANOUT": str(fanout)})  # fmt: skip


def quorum(nodes: int, repair: str) -> ClusterSpec:
    return kv_cluster(max(nodes, 5), protocol="quorum", name=repair.replace(" ", "-"),
                      clients=("c1",), environment=NONE | REPAIRS[repair])  # fmt: skip


async def scenario(stage: Stage) -> None:
    clients, name = AtANode("c1"), stage.cluster.spec.name
    await connected(stage)
    async with stage.running(clients):
        if name == "gossip":
            await rumours(stage, clients)
        elif name == "pbs":
            await staleness(stage, clients)
        else:
            await mend(stage, clients, name)


async def mend(stage: Stage, clients: AtANode, name: str) -> None:
    unread, read = await repairs(stage, clients)
    stage.figures(away=KEYS - read["away"], wiped=KEYS - read["wiped"], keys=KEYS)
    evidence = (f"of {KEYS} copies each, {unread['away']} were missing where writes had been "
                f"missed and {unread['wiped']} where the disk was lost; {read['away']} and "
                f"{read['wiped']} after half of the keys were read")  # fmt: skip
    half = KEYS // 2
    if name == "read-repair":
        stage.claim("Read repair mends what is read, when it is read",
                    unread == {"away": KEYS, "wiped": KEYS} and max(read.values()) <= 2 * half
                    and max(read["away"], read["wiped"]) <= half, evidence)
        stage.claim("What nobody reads stays missing",
                    read["away"] == read["wiped"] == half, evidence)
    elif name == "hinted-handoff":
        stage.claim("Hinted handoff brings what was written while a node was away",
                    unread["away"] == 0, evidence)
        stage.claim("No hint brings back a lost disk", read["wiped"] == KEYS, evidence)
    else:
        stage.claim("When all has come to rest, the replicas agree", read["all"] == 0,
                    f"{evidence}; no operation, hint or message is left, every link was swept",
                    control_breaks=True)


def answer(results: Results) -> str:
    small, large = results["5 nodes"].figures, results.get("25 nodes")
    handoff, repair = (results[name].figures for name in ("hinted handoff", "read repair"))
    pbs = results["staleness"].figures
    grown = "."
    if large is not None:
        one, two = (results[name].figures for name in ("10 nodes, fan-out 1", "10 nodes"))
        times = large.figures["spread_ms"] / small["spread_ms"]
        why = "it grows with log n" if times < 5 else "this machine did not keep up with 25"
        grown = (f"; at 25 {large.figures['spread_ms']:.0f} ms: five times the nodes, {times:.1f} "
                 f"times as long, for {why}. Told to one at a time, 10 nodes take "
                 f"{one['spread_ms']:.0f} ms in place of {two['spread_ms']:.0f}, for "
                 f"{one['told']:.1f} messages a copy in place of {two['told']:.1f}.")  # fmt: skip
    return f"""
        Each node tells what is new to a few others, who tell it on. Half of the writes were at all
        5 nodes after {small["spread_ms"]:.0f} ms{grown}

        Rumours and writes miss whoever is away. Then each repair mends its own: read repair what is
        read ({repair["away"]} of {repair["keys"]} copies, for half were), hinted handoff what was
        written meanwhile ({handoff["away"]} of {handoff["keys"]}, and {handoff["wiped"]} of those
        on a lost disk), anti-entropy by hash trees everything. Without any, all came to rest and
        the replicas differ for good: "eventually" is a mechanism, not a promise of time.

        How stale until then is a matter of delays (PBS): predicted {pbs["predicted_1"]:.0f} % of
        the reads at one replica, measured {pbs["stale_1"]:.0f} %; of two {pbs["predicted_2"]:.0f} %
        and {pbs["stale_2"]:.0f} %. 99 % of the copies had arrived after {pbs["visible_ms"]:.0f} ms.
    """


LARGE = ("local", "simulation")  # not ten or twenty-five containers

LAB = Lab(
    name="eventual", questions=(28,), scenario=scenario, answer=answer,
    question="How do replicas come to agree, and how stale are reads until they do?",
    variants=(
        Variant("5 nodes", "holds", "rumours, fan-out 2", lambda _: gossip(5, 2)),
        Variant("5 nodes, fan-out 1", "holds", "told to one at a time",
                lambda _: gossip(5, 1), on=("compose",)),
        Variant("10 nodes", "holds", "the same", lambda _: gossip(10, 2), on=LARGE),
        Variant("10 nodes, fan-out 1", "holds", "told to one at a time",
                lambda _: gossip(10, 1), on=LARGE),
        Variant("25 nodes", "holds", "the same, fan-out 2", lambda _: gossip(25, 2), on=LARGE),
        Variant("read repair", "holds", "alone", lambda nodes: quorum(nodes, "read repair")),
        Variant("hinted handoff", "holds", "alone, W = 3, sloppy",
                lambda nodes: quorum(nodes, "hinted handoff")),
        Variant("anti-entropy", "holds", "alone", lambda nodes: quorum(nodes, "anti-entropy")),
        Variant("no repair", "breaks", "none of them", lambda nodes: quorum(nodes, "no repair")),
        Variant("staleness", "holds", "R = W = 1, no repair", lambda _: kv_cluster(
            3, protocol="quorum", name="pbs", clients=("c1",),
            environment={**NONE, "KV_WRITE_QUORUM": "1"})),
    ),
    predictions=(
        Prediction("Five times as many nodes: does a rumour need five times as long?",
                   lambda results: None if "25 nodes" not in results else
                   results["25 nodes"].figures["spread_ms"]
                   > 5 * results["5 nodes"].figures["spread_ms"],
                   "those who know double each round: log n of them, if the machine keeps up."),
        Prediction("A replica's disk is lost. Will hinted handoff bring back what was on it?",
                   lambda results: results["hinted handoff"].figures["wiped"] > 0,
                   "a hint is kept for writes that a replica missed, not for those it had."),
    ),
    follow_ups={
        "Which conflict rule?": "The last write wins here: simple, and it drops one of two "
            "concurrent writes. Siblings and CRDTs keep both (lab-conflicts).",
        "Why not anti-entropy alone?": "It compares everything; the others know what to mend. Real "
            "stores run all three, the costly one seldom.",
    },
    misses="No node joins or leaves for good; tombstones are kept for ever (Cassandra's "
           "gc_grace_seconds, and what comes back when it is shorter than an outage).",
    comparison=(("everywhere, median", "{spread_ms:.0f} ms"), ("slowest", "{slowest_ms:.0f} ms"),
                ("messages for each copy", "{told:.1f}"),
                ("came by anti-entropy", "{missed} of {copies}")),
    compared=("5 nodes", "5 nodes, fan-out 1", "10 nodes", "10 nodes, fan-out 1", "25 nodes"),
)
