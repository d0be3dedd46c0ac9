"""The parts of lab-eventual, each an experiment of its own; `labs/eventual.py` tells the story."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count, islice, permutations
from typing import TYPE_CHECKING, Any

from labs.harness.report.events import read
from labs.harness.traces.collect import written
from labs.harness.workloads.at_a_node import Answer, AtANode
from labs.harness.workloads.statistics import percentile
from services.protocols.quorum.placement import preference

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

RUMOURS = 6  # writes of which each is followed to every node
KEYS = 16  # written before the faults, and as many during them
REPLICAS = 3  # N, of the nodes of the cluster
LINKS_KEEP_S = 1.05  # what has waited longer for a peer is dropped (chassis/transport.py: 1.0)
WITHIN_S = 90.0
ASKED = 5  # nodes at a time
ANSWER_S = 10.0  # a node of 25 on two busy cores may take seconds to say how it is


async def connected(stage: Stage) -> None:
    """Wait until every node serves, and has a connection to every other."""
    await stage.cluster.ready(within_s=WITHIN_S)

    missing = set(stage.cluster.nodes)

    async def joined() -> bool:
        await _said(stage, missing, lambda said: all(
            link["connected"] for link in said["peers"].values()))  # fmt: skip
        return not missing

    await stage.require(joined, within_s=WITHIN_S, what="every node is connected to every other")


# ---------------------------------------------------------------------------- rumours


async def rumours(stage: Stage, clients: AtANode) -> None:
    """Write at one node after another; see from the nodes' own logs when each of them had it."""
    nodes = list(stage.cluster.nodes)
    everywhere = True
    told: list[Answer] = []
    for number in range(1, RUMOURS + 1):
        # One after another, or all of them would go the same way, in the same messages.
        told.append(await clients.put(stage.random.choice(nodes), f"rumour-{number}", number))
        await stage.require(lambda: told[-1].ok, within_s=0, what="the write was acknowledged")
        heard = partial(_have, stage, number, set(nodes))
        everywhere &= bool(await stage.eventually(heard, within_s=WITHIN_S,
                                                  what=f"{number} keys at every node"))  # fmt: skip
    settled = partial(_settled, stage, set(nodes))
    everywhere &= bool(await stage.eventually(settled, within_s=WITHIN_S,
                                              what="equal digests, no rumour"))  # fmt: skip
    stage.claim("What one node has acknowledged is at every node, though nobody reads it",
                everywhere, f"{RUMOURS} writes, {len(nodes)} nodes, equal digests")
    await written(stage.cluster, nodes, WITHIN_S)
    learnt = {node: stage.protocol_events(node, "learn") for node in nodes}
    spread, late = _spread(learnt)
    frames = sum("Rumours" in names for node in nodes for _, _, names in _sent(stage, node))
    stage.figures(size=len(nodes), spread_ms=percentile(spread, 50), slowest_ms=max(spread),
                  missed=late, copies=RUMOURS * (len(nodes) - 1),
                  told=frames / RUMOURS / (len(nodes) - 1))  # fmt: skip
    stage.tell(f"half of the writes were everywhere after {percentile(spread, 50):.0f} ms, all "
               f"after {max(spread):.0f} ms; {late} copies came by anti-entropy")


async def _have(stage: Stage, keys: int, missing: set[str]) -> bool:
    """Have those that were `missing` so many keys now?"""
    await _said(stage, missing, lambda said: said["keys"] == keys)
    return not missing


async def _said(stage: Stage, missing: set[str], meets: Callable[[dict[str, Any]], bool]) -> None:
    """Who says what is wanted leaves `missing`, and is not asked again; a few at a time, until one
    does not say it: to ask all 25 all the time would be the load."""
    waiting = sorted(missing)
    while waiting:
        asked, waiting = waiting[:ASKED], waiting[ASKED:]
        statuses = await asyncio.gather(*(stage.cluster.status(node, ANSWER_S) for node in asked))
        missing -= {node for node, said in zip(asked, statuses, strict=True)
                    if said and meets(said)}  # fmt: skip
        if missing.intersection(asked):
            return


async def _settled(stage: Stage, missing: set[str]) -> bool:
    await _said(stage, missing, lambda said: not said["hot"])
    if missing:
        return False
    statuses = list((await stage.cluster.statuses(within_s=ANSWER_S)).values())
    return all(said and not said["hot"] for said in statuses) and (
        len({said["digest"] for said in statuses if said}) == 1
    )


def _spread(learnt: dict[str, list[dict[str, Any]]]) -> tuple[list[float], int]:
    """For each key how long after its write the last node heard of it (ms); and how many first
    copies came by anti-entropy, because the rumour had missed that node."""
    written_ns: dict[str, int] = {}
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for node, events in learnt.items():
        for event in events:
            if event["how"] == "write":
                written_ns[event["key"]] = event["at_ns"]
            first.setdefault((node, event["key"]), event)
    last: dict[str, int] = {}
    for (_, key), event in first.items():
        last[key] = max(last.get(key, 0), event["at_ns"])
    late = sum(event["how"] == "anti_entropy" for event in first.values())
    return [(last[key] - at) / 1e6 for key, at in written_ns.items()], late


def _sent(stage: Stage, node: str) -> Iterable[tuple[int, str, str]]:
    """(ns, peer, names) of each frame that `node` has sent."""
    for found in read(stage.cluster.telemetry(node)):
        for at_ns, peer, _, names, _, _ in found[0].sent if found else ():
            yield at_ns, peer, names


# ---------------------------------------------------------------------------- repairs


class Copies:
    """Which keys were written, and how many of them each node should have."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.nodes = tuple(nodes)
        self.keys: list[str] = []
        self.sweeps = (f"sweep-{number}" for number in count())

    def preference(self, key: str) -> list[str]:
        """The nodes as the store itself prefers them: N homes, then those that stand in."""
        return preference(key, self.nodes)

    def homes(self, key: str) -> list[str]:
        return self.preference(key)[:REPLICAS]

    def new(self, word: str, fits: Callable[[list[str]], bool]) -> list[str]:
        """`KEYS` names whose list of preference fits."""
        names = (f"{word}-{number}" for number in count())
        return list(islice((name for name in names if fits(self.preference(name))), KEYS))

    def expected(self, node: str) -> int:
        return sum(node in self.homes(key) for key in self.keys)


async def repairs(stage: Stage, clients: AtANode) -> tuple[Counter[str], Counter[str]]:
    """A replica loses its disk, another misses writes; then half of all that is read.

    Returns how many copies `away` and `wiped` lack before the reading, and after it.
    """
    copies = Copies(stage.cluster.nodes)
    away, wiped = stage.random.sample(copies.nodes, 2)
    # So that no key is concerned by both faults.
    before = copies.new("before", lambda best: wiped in best[:REPLICAS] and away not in best[:4])
    during = copies.new("during", lambda best: away in best[:REPLICAS] and wiped not in best[:4])
    await _write(stage, clients, copies, before)
    await stage.require(lambda: _whole(stage, copies), within_s=WITHIN_S,
                        what="every home has what was written before the faults")  # fmt: skip
    # First of all: a busy store may leave a hint with a node further down the list, with this one.
    async with stage.fault(stage.nemesis.wipe(wiped), f"killed, and its disk lost: {wiped}"):
        pass
    # Refused, not silent: what is sent into silence is on its way, and arrives after the healing.
    cut = stage.nemesis.refuse([
        link for link in stage.cluster.links if away in link and clients.place not in link
    ])  # fmt: skip
    async with stage.fault(cut, f"cut off from the others: {away}"):
        await _write(stage, clients, copies, during, but=away)
        last_ns = stage.now_ns()
        await stage.require(lambda: stage.now_ns() - last_ns > LINKS_KEEP_S * 1e9, within_s=5,
                            what="the links have given up what they kept for it")  # fmt: skip
    await _end(stage, clients, copies)
    answers: list[Answer] = []
    counted = partial(_lacking, stage, copies)
    first = await stage.require(counted, within_s=WITHIN_S, what="every node says what it has")
    for key in (*before[::2], *during[::2]):
        place = next(home for home in copies.homes(key) if home not in (away, wiped))
        answers.append(await clients.get(place, key, "all"))
    await stage.require(lambda: all(each.ok for each in answers), within_s=0,
                        what="half of the keys were read")  # fmt: skip
    await _end(stage, clients, copies)
    last = await stage.require(counted, within_s=WITHIN_S, what="every node says what it has")
    return (Counter(away=first[away], wiped=first[wiped]),
            Counter(away=last[away], wiped=last[wiped], all=last.total()))  # fmt: skip


async def _write(
    stage: Stage, clients: AtANode, copies: Copies, keys: list[str], but: str = ""
) -> None:
    places = [stage.random.choice([home for home in copies.homes(key) if home != but])
              for key in keys]  # fmt: skip
    answers = await asyncio.gather(
        *(clients.put(place, key, 1) for place, key in zip(places, keys, strict=True))
    )
    await stage.require(lambda: all(each.ok for each in answers), within_s=0,
                        what="every write was acknowledged")  # fmt: skip
    copies.keys += keys


async def _lacking(stage: Stage, copies: Copies) -> Counter[str] | None:
    """How many copies each node should have and has not, as it says itself: no read is needed that
    might repair it. None while a node does not say."""
    statuses = await stage.cluster.statuses(within_s=ANSWER_S)
    if not all(statuses.values()):
        return None
    return Counter({
        node: copies.expected(node) - said["keys"] for node, said in statuses.items() if said
    })  # fmt: skip


async def _whole(stage: Stage, copies: Copies) -> bool:
    lacking = await _lacking(stage, copies)
    return lacking is not None and not any(lacking.values())


async def _end(stage: Stage, clients: AtANode, copies: Copies) -> None:
    """Until nothing more can come of anything that was asked so far, whatever repairs there are.

    No node has an operation, a hint or a queued message left. What is on the links themselves is
    swept before a read of all replicas: links keep their order, so what had been sent before the
    read has arrived before its answer. (And if there is anti-entropy, until it has found nothing.)
    """
    await stage.require(lambda: _idle(stage), within_s=WITHIN_S,
                        what="no operation, hint or message is left anywhere")  # fmt: skip
    swept: set[tuple[str, str]] = set()
    for key in copies.sweeps:
        homes = copies.homes(key)
        if set(permutations(homes, 2)) <= swept:
            continue
        copies.keys.append(key)
        await clients.put(homes[0], key, 1, "all")
        for home in homes:
            answer = await clients.get(home, key, "all")
            if answer.ok:
                swept |= {(home, other) for other in homes if other != home}
        if len(swept) == len(copies.nodes) * (len(copies.nodes) - 1):
            break
    await stage.require(lambda: _idle(stage), within_s=WITHIN_S,
                        what="no operation, hint or message is left anywhere")  # fmt: skip
    if stage.cluster.spec.nodes[0].environment["KV_ANTI_ENTROPY_TICKS"] != "0":
        await stage.eventually(lambda: _whole(stage, copies), within_s=WITHIN_S,
                               what="anti-entropy has found nothing")  # fmt: skip


async def _idle(stage: Stage) -> bool:
    statuses = (await stage.cluster.statuses(within_s=ANSWER_S)).values()
    return all(
        said
        and not said["in_flight"]
        and not said["hints"]
        and all(link["connected"] and not link["queued"] for link in said["peers"].values())
        for said in statuses
    )
