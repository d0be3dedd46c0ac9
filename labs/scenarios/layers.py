"""The part of lab-traffic about who takes which share of a spike: cache, read replicas, a queue.

A store of three nodes, each good for 13 reads a second, and a worker good for 25 orders, whatever
the machine. The same spike comes through all layers; at the read replicas without the cache; at one
such node alone, and at a worker that is asked to do each order at once. The last three are each
other's strangers, and so come at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from labs.harness.lab.stage import InvalidRun
from labs.harness.testbed.description import ClusterSpec, MemberSpec, NodeSpec
from labs.harness.workloads import consumer_groups as groups
from labs.harness.workloads.layers import PAGES, PageReads, QueuedOrders
from labs.harness.workloads.messages import read_ledger
from labs.harness.workloads.requests import RequestWorkload
from labs.scenarios.traffic import PLAIN
from services.kv.client import KvClient

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage
    from labs.harness.workloads.open_loop import Ended, OpenLoop

STORE, ALONE = ("n1", "n2", "n3"), "alone"
USUAL, SPIKE = 10, 100  # requests a second
SPIKE_S = 1.0
DEADLINE_MS = 800  # of a caller
KV = {"KV_PROTOCOL": "raft", "KV_READ_SLOTS": "1", "KV_READ_MS": "75", "KV_ELECTION_TICKS": "50"}
CACHE = {"CACHE_STORE_READ": "local", "CACHE_TTL_MS": "60000", "CACHE_EARLY_BETA": "0",
         "CACHE_ENGINE_TIMEOUT_MS": "2000"}  # fmt: skip
WORK = {"CONSUMER_CONCURRENCY": "1", "CONSUMER_SERVICE_TIME_MS": "40", "CONSUMER_BATCH": "1"}
NODES = (
    *(NodeSpec(each, "kv", KV, tuple(other for other in STORE if other != each)) for each in STORE),
    NodeSpec(ALONE, "kv", KV, ()),
    NodeSpec("readers", "load_balancer", {**PLAIN, "LOAD_BALANCER_POLICY": "round_robin"}, STORE),
    NodeSpec("cache", "cache", CACHE, ("readers", "redis")),
    *groups.producers(("orders",), WORK, ("kafka", "redis")),
    *groups.consumers({"work": WORK}, 1, ("kafka", "redis")),
    NodeSpec("worker", "web", {"WEB_CONCURRENCY": "1", "WEB_SERVICE_MS": "40"}, ()),
)


def beside(spec: ClusterSpec) -> ClusterSpec:
    """That cluster, and the layers."""
    members = (MemberSpec("redis", "redis"), MemberSpec("kafka", "kafka"))
    return replace(spec, nodes=(*spec.nodes, *NODES), members=members)


async def shares(stage: Stage) -> None:
    leaders = [await leading(stage, nodes) for nodes in (STORE, (ALONE,))]
    await groups.owned(stage, ["work-1"])
    await publish(stage, leaders)
    usual: dict[str, Any] = {
        "seed": stage.seed, "rate_per_s": USUAL, "deadline_ms": DEADLINE_MS
    }  # fmt: skip
    orders = QueuedOrders("c1", "orders", **usual)
    reads = PageReads("c1", "cache", "cached", **usual)
    layered = await spike(stage, reads, orders)
    seen, told = await seen_by_store(stage, layered[0])
    uncached = PageReads("c1", "readers", "local", **usual)
    alone = PageReads("c1", ALONE, "linearizable", **usual)
    at_once = RequestWorkload("c1", "worker", **usual)
    bare = await spike(stage, uncached, alone, at_once)
    await give_up(stage, ALONE, "worker")
    judge_reads(stage, [reads.since(*layered), uncached.since(*bare), alone.since(*bare)],
                seen, leaders[0])  # fmt: skip
    judge_hits(stage, told)
    await judge_orders(stage, orders, at_once.since(*bare), layered)


async def leading(stage: Stage, nodes: tuple[str, ...]) -> str:
    """Which of these nodes leads the others."""
    found = await stage.require(
        lambda: stage.leading(nodes), within_s=30, what=f"one of {', '.join(nodes)} leads"
    )
    return found[0]


async def publish(stage: Stage, leaders: list[str]) -> None:
    """All pages, in the store of each of these."""
    for leader in leaders:
        async with KvClient({leader: stage.cluster.direct_address(leader)}) as client:
            await asyncio.gather(*(client.put(page, page, deadline_ms=10_000) for page in PAGES))

    async def everywhere() -> bool:
        told = [await stage.cluster.status(each) for each in STORE]
        return all(told) and len({each["applied_index"] for each in told if each}) == 1

    # The cache would keep for a second what a follower says that has not heard of a page yet.
    await stage.require(everywhere, within_s=20, what="every node of the store has all pages")


async def spike(stage: Stage, *loads: OpenLoop) -> tuple[int, int]:
    """Ten times the usual load for SPIKE_S, and until all have their answer; begin and end, ns."""
    async with stage.running(*loads):
        # Also until the line is gone that what the spike before it has missed may have left.
        await stage.require(lambda: all(map(at_ease, loads)),
                            within_s=20, what="the usual load is answered quickly")  # fmt: skip
        begin = stage.now_ns()
        end = begin + int(SPIKE_S * 1e9)
        for load in loads:
            load.rate_per_s = SPIKE
        await stage.require(lambda: stage.now_ns() >= end, within_s=20, what="the spike's end")
    for load in loads:
        if len(load.since(begin, end)) < 0.6 * SPIKE * SPIKE_S:
            raise InvalidRun(f"{len(load.since(begin, end))} came in {SPIKE_S:g} s: no spike")
    return begin, end


def at_ease(load: OpenLoop) -> bool:
    """Were the last ones answered, and quickly? (Who refuses everything is quick, too.)"""
    last = load.ended[-5:]
    return len(last) == 5 and all(
        each.type == "ok" and each.ms <= DEADLINE_MS / 2 for each in last
    )


async def give_up(stage: Stage, *nodes: str) -> None:
    """They would go on working for callers who have given up; the experiment does not wait."""
    await asyncio.gather(*map(stage.cluster.kill, nodes))


async def seen_by_store(stage: Stage, since_ns: int) -> tuple[dict[str, int], dict[str, int]]:
    """How many reads each node of the store tells of, once it has told of all the cache's; and how
    many of its own the cache counts, by what it had."""
    counts: dict[str, int] = {}

    async def told() -> dict[str, int]:
        status = await stage.cluster.status("cache")
        asked = status and status["counters"]["store_reads"]
        if not status or asked != sum(reads_at(stage, each, 0) for each in STORE):
            return {}
        counts.update(status["counters"]["reads"])
        return {each: reads_at(stage, each, since_ns) for each in STORE}

    what = "the store tells of all reads of the cache"
    return await stage.require(told, within_s=10, what=what), counts


def reads_at(stage: Stage, node: str, since_ns: int) -> int:
    events = stage.protocol_events(node, "request", since_ns=since_ns)
    return sum(each["method"] == "GET" and each["path"].startswith("/kv/") for each in events)


def in_time(sent: list[Ended]) -> float:
    """The share that was answered by its deadline."""
    return sum(each.type == "ok" for each in sent) / len(sent)


def judge_reads(stage: Stage, spikes: list[list[Ended]], seen: dict[str, int], leader: str) -> None:
    """`spikes`: through the cache, at the replicas, at one node alone."""
    sent, asked = len(spikes[0]), sum(seen.values())
    if asked < 5:
        raise InvalidRun(f"{asked} reads reached the store: the cache had all before the spike")
    followers = asked - seen[leader]
    cached, replicas, alone = map(in_time, spikes)
    stage.figures(hit=1 - asked / sent, followed=followers / asked, led=seen[leader] / sent,
                  cached=cached, replicas=replicas, alone=alone)  # fmt: skip
    stage.claim("The cache takes its share of the reads: most never reach the store",
                asked < 0.5 * sent and cached >= max(0.9, replicas),
                f"{sent - asked} of {sent} reads never reached the store; {cached:.0%} were "
                f"answered in time, {replicas:.0%} without the cache")  # fmt: skip
    stage.claim("Read replicas take theirs: followers answer most of what reaches the store",
                followers > 0.5 * asked and replicas >= 2 * alone,
                f"{followers} of {asked} by followers; without a cache {replicas:.0%} of all were "
                f"answered in time, {alone:.0%} by one node alone")  # fmt: skip


def judge_hits(stage: Stage, told: Mapping[str, int]) -> None:
    """`told`: the cache's reads by what it had. That of many who miss at once one asks the store is
    no merit of what is kept, and spares half of a spike by itself."""
    hits, reads = told["hit"], sum(told.values())
    stage.claim("What the cache keeps answers, not only what others are just fetching",
                hits > 0.4 * reads,
                f"by its own count {hits} of {reads} were hits, {told['collapsed']} waited for "
                f"another's answer, {told['miss']} asked the store")  # fmt: skip


async def judge_orders(
    stage: Stage, orders: QueuedOrders, at_once: list[Ended], spiked: tuple[int, int]
) -> None:
    """`at_once`: of a worker that had to answer itself; `spiked`: begin and end of the spike, ns"""

    async def done() -> bool:
        return orders.accepted <= (await read_ledger(stage.cluster, "work")).times.keys()

    await stage.eventually(done, within_s=20, what="every accepted order is done")
    ledger, (_, over) = await read_ledger(stage.cluster, "work"), spiked
    lost, repeated = orders.accepted - ledger.times.keys(), ledger.repeated()
    consumed = stage.protocol_events("work-1", "consume")
    did = [each["at_ns"] for each in consumed if each["outcome"] == "ok"]
    backlog = len(orders.accepted) - sum(at_ns <= over for at_ns in did)
    sent = orders.since(*spiked)
    accepted, direct = in_time(sent), in_time(at_once)
    later_s = (max(did, default=over) - over) / 1e9
    stage.figures(accepted=accepted, direct=direct, backlog=backlog, later_s=later_s)
    stage.claim("A queue takes the orders, and they are worked off after the spike, each once",
                accepted >= 0.95 and direct < 0.5 and backlog > 0.25 * len(sent)
                and not lost and not repeated,
                f"{accepted:.0%} of {len(sent)} were accepted in time, {direct:.0%} when the "
                f"worker had to answer itself; a backlog of {backlog} was gone after "
                f"{later_s:.1f} s; {len(lost)} lost, {len(repeated)} done twice")  # fmt: skip
