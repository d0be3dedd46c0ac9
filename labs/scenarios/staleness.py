"""How stale reads are after a write, and what its own delays predict (PBS).

Bailis, Venkataraman, Franklin, Hellerstein, Stoica: *Probabilistically Bounded Staleness for
Practical Partial Quorums* (VLDB 2012). Their model, §4.1 "WARS": a write takes W to a replica and
its acknowledgement A back; a read takes R to a replica and its response S back. A read that begins
t after the write was acknowledged is stale if none of the first R responses comes from a replica
that the write had reached when the request did. Delays are drawn by Monte Carlo from those
measured, as if they were independent.

Two things differ here. Coordinators are replicas: their own copy costs no delay; so with a write
quorum of one the write is acknowledged at once (A plays no part). And the node that reads knows its
own copy as it was when the read began.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

from labs.harness.report.events import read
from labs.harness.report.messages import join
from labs.harness.traces.collect import gather
from labs.harness.workloads.at_a_node import Answer, AtANode
from labs.harness.workloads.statistics import percentile

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

WRITES, READS = 30, 8
SIZES = {"eventual": 1, "quorum": 2, "all": 3}  # of three replicas
ONE_WAY_MS, JITTER_MS, BESIDE_MS = 15.0, 12.0, 2.0
DRAWS = 500
DEVIATIONS = 4.0  # of the drawn shares; chance alone goes further once in 16,000 runs
Delays = Mapping[str, Sequence[float]]  # W, R, S: one-way, in ms
Asked = tuple[Answer, list[tuple[int, Answer]]]  # a write; the reads after it, each with its R


@dataclass(slots=True)
class Followed:
    """One write, and the reads of its key after it: by R, (t in ms, was it stale)."""

    reads: dict[int, list[tuple[float, bool]]] = field(default_factory=lambda: defaultdict(list))


async def staleness(stage: Stage, clients: AtANode) -> None:
    """Write at one replica, read at another at once and again; compare with the prediction."""
    writer, reader = stage.random.sample(stage.cluster.nodes, 2)
    between = [link for link in stage.cluster.links if link.src in stage.cluster.nodes]
    apart = stage.nemesis.delay(between, time_ms=ONE_WAY_MS, jitter_ms=JITTER_MS)
    beside = stage.nemesis.delay((clients.place, reader), time_ms=BESIDE_MS)
    async with (
        stage.fault(apart, f"nodes are {ONE_WAY_MS:g} ± {JITTER_MS:g} ms apart, each way"),
        stage.fault(beside, f"the reader is {BESIDE_MS:g} ms from {reader}"),
    ):
        followed = [await _follow(clients, writer, reader, f"pbs-{number}")
                    for number in range(WRITES)]  # fmt: skip
        measured = await _timed(stage, writer, reader, followed)
    delays = _one_way(stage)
    _compare(stage, measured, delays)


async def _follow(clients: AtANode, writer: str, reader: str, key: str) -> Asked:
    """A write, then reads one after another; with every other one, reads of two and of three."""
    write = await clients.put(writer, key, 1)
    reads: list[tuple[int, Answer]] = []
    larger: list[asyncio.Task[tuple[int, Answer]]] = []

    async def ask(consistency: str) -> tuple[int, Answer]:
        return SIZES[consistency], await clients.get(reader, key, consistency)

    for number in range(READS):
        if number % 2 == 0:
            larger += [asyncio.create_task(ask("quorum")), asyncio.create_task(ask("all"))]
        reads.append(await ask("eventual"))
    return write, [*reads, *await asyncio.gather(*larger)]


async def _timed(
    stage: Stage, writer: str, reader: str, all_of_it: Iterable[Asked]
) -> list[Followed]:
    """t by the nodes' own clocks: from the end of the write at its node to the begin of the read at
    its own. What the client saw has the client's links in it."""
    traces = await gather(stage.cluster, stage.history_path, stage.recorder.start_ns)
    ends, begins = {}, {}
    for trace in traces:
        for span in trace.spans:
            if span.event == "request" and span.node == writer:
                ends[trace.root.trace_id] = span.end_us
            if span.event == "request" and span.node == reader:
                begins[trace.root.trace_id] = span.begin_us
    found = []
    for write, reads in all_of_it:
        one = Followed()
        for size, each in reads:
            if write.ok and each.ok:
                t_ms = (begins[each.trace_id] - ends[write.trace_id]) / 1000
                one.reads[size].append((max(0.0, t_ms), each.version == 0))
        found.append(one)
    return found


def _one_way(stage: Stage) -> Delays:
    """What the messages of this run took, by the letter of the model."""
    letters = {"Replicate": "W", "Read": "R", "ReadReply": "S"}
    delays: dict[str, list[float]] = defaultdict(list)
    nodes = stage.cluster.nodes
    told = [found[0] for node in nodes for found in read(stage.cluster.telemetry(node)) if found]
    for message in join(told, stage.recorder.start_ns):
        for name in set(message.names.split("+")) & letters.keys():
            if message.received_us is not None:
                took_ms = (message.received_us - message.sent_us) / 1000
                if took_ms >= ONE_WAY_MS - JITTER_MS:  # sent under the fault
                    delays[letters[name]].append(took_ms)
    return delays


def _compare(stage: Stage, measured: list[Followed], delays: Delays) -> None:
    drawn = predict(measured, delays, stage.random)
    figures: dict[str, float] = {"visible_ms": percentile(delays["W"], 99)}
    for size in (1, 2):
        reads = [stale for one in measured for _, stale in one.reads[size]]
        share = 100 * sum(reads) / len(reads)
        shares = [100 * each for each in drawn[size]]
        mean, deviation = fmean(shares), pstdev(shares)
        low, high = percentile(shares, 2.5), percentile(shares, 97.5)
        figures |= {f"stale_{size}": share, f"predicted_{size}": mean}
        stage.claim(f"With R = {size}, reads are as stale as PBS predicts",
                    abs(share - mean) <= DEVIATIONS * deviation,
                    f"{share:.1f} % of {len(reads)} reads; predicted {mean:.1f} %, in 95 % of the "
                    f"drawn runs {low:.1f} to {high:.1f} %")
    all_of_them = [stale for one in measured for _, stale in one.reads[3]]
    stage.claim("With R + W > N no read is stale", not any(all_of_them),
                f"{sum(all_of_them)} of {len(all_of_them)} reads of all three")
    stage.figures(**figures)


def predict(
    measured: Iterable[Followed], delays: Delays, random: Random
) -> dict[int, list[float]]:
    """The share of stale reads in `DRAWS` runs of the model, with reads at the same moments.

    A write has its delays once, for all the reads that follow it: what they say is not independent,
    and the interval must know.
    """
    shares: dict[int, list[float]] = {1: [], 2: []}
    measured = list(measured)
    total = {size: sum(len(one.reads[size]) for one in measured) for size in shares}
    for _ in range(DRAWS):
        stale = dict.fromkeys(shares, 0)
        for one in measured:
            here, third = random.choice(delays["W"]), random.choice(delays["W"])
            stale[1] += sum(here > t for t, _ in one.reads[1])
            for t, _ in one.reads[2]:
                to_writer, to_third = random.choice(delays["R"]), random.choice(delays["R"])
                by_writer = to_writer + random.choice(delays["S"])
                by_third = to_third + random.choice(delays["S"])
                stale[2] += here > t and by_third < by_writer and third > t + to_third
        for size, found in shares.items():
            found.append(stale[size] / total[size])
    return shares
