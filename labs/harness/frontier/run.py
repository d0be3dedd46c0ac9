"""One seed of one setting: the shipped service in the simulation, a load, the faults, a judgement.

The timetable is the same for every setting and drawn from the seed alone: two of five nodes are cut
off with a client on each side; one of the two loses its disk before the cut heals; later another
node is killed and comes back with its disk. Nodes are some milliseconds apart.

Clients know where keys live and what they cannot reach (Dynamo §6.4, client-driven coordination):
so availability is that of the store, not that of a client that tries. The exception is ours: a node
that is no home of a key does not coordinate for it, so where no home is left on a side, nobody
answers, sloppy or not.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from labs.harness.checkers import check_linearizable, check_lost_writes
from labs.harness.frontier.settings import REPLICAS, Setting
from labs.harness.history import History, Op, Recorder, load
from labs.harness.links.fault import Link, LinkFault
from labs.harness.testbed.cluster import until
from labs.harness.testbed.description import kv_cluster
from labs.harness.testbed.simulation.cluster import SimulatedCluster, SimulatedTestbed, new_loop
from labs.harness.workloads.open_loop import arrivals
from labs.harness.workloads.statistics import percentile
from services.chassis.errors import Definite, Indefinite, NotFound
from services.kv.client import KvClient, Reply
from services.protocols.quorum.placement import preference

NODES = 5
RATE_PER_S, DEADLINE_MS = 120.0, 500
REGISTERS = 4
CUT_S, WIPE_S, HEAL_S, KILL_S, START_S, END_S = 0.8, 1.6, 2.0, 2.6, 3.1, 3.8
APART = LinkFault("delay", time_ms=4.0, jitter_ms=3.0)
QUIET_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed. `linearizable` None: the checker ran out of time.

    `lost` of `acknowledged` writes of keys that are written once; `stale` of `reads` returned what
    had been replaced before they began; `answered` of `asked` operations, and their `p99_ms`.
    """

    setting: str
    seed: int
    asked: int
    answered: int
    p99_ms: float
    reads: int
    stale: int
    acknowledged: int
    lost: int
    linearizable: bool | None


class Sides:
    """Who can reach whom now: two client places, and the nodes on the side of each."""

    def __init__(self, cluster: SimulatedCluster, random: Random) -> None:
        self.cluster = cluster
        nodes = list(cluster.nodes)
        random.shuffle(nodes)
        self.small, self.large = nodes[:2], nodes[2:]
        self.wiped, self.killed = self.small[0], self.large[0]
        self.cut = False

    def reachable(self, place: str) -> list[str]:
        side = self.small if place == "c1" else self.large
        names = side if self.cut else self.cluster.nodes
        return [node for node in names if self.cluster.state(node) == "running"]

    async def set(self, cut: bool) -> None:
        """Cut the sides apart, or join them; between nodes there is a distance in any case."""
        self.cut = cut
        sides = [{*self.small, "c1"}, {*self.large, "c2"}]
        rules: dict[Link, LinkFault | None] = {}
        for link in self.cluster.links:
            apart = not any({link.src, link.dst} <= side for side in sides)
            between = APART if link.src in self.cluster.nodes else None
            rules[link] = LinkFault("blackhole") if cut and apart else between
        await self.cluster.link_control.set(rules)


class Load:
    """Two clients that write and read some registers, and write keys that nobody writes again."""

    def __init__(
        self, setting: Setting, cluster: SimulatedCluster, recorder: Recorder, sides: Sides
    ) -> None:
        self.setting, self.cluster, self.recorder, self.sides = setting, cluster, recorder, sides
        self.once: list[str] = []
        self.clients: dict[tuple[str, tuple[str, ...]], KvClient] = {}
        self._number = 0

    async def run(self, random: Random) -> None:
        """Until `END_S`; returns when the last operation has ended."""
        loop = asyncio.get_running_loop()
        end, tasks = loop.time() + END_S, []
        async for _ in arrivals(lambda: RATE_PER_S, random):
            if loop.time() >= end:
                break
            kind = random.choices(("read", "write", "once"), (5, 3, 2))[0]
            place, register = random.choice(("c1", "c2")), random.randrange(REGISTERS)
            tasks.append(asyncio.create_task(self._operate(kind, place, f"register-{register}")))
        await asyncio.gather(*tasks)

    async def _operate(self, kind: str, place: str, key: str) -> None:
        self._number += 1
        number, f = self._number, "read" if kind == "read" else "write"
        if kind == "once":
            key = f"once-{number}"
            self.once.append(key)
        await self.ask(f, place, key, None if f == "read" else number, process=number)

    async def ask(
        self, f: str, place: str, key: str, value: Any, *, process: int, **how: Any
    ) -> None:
        """One operation, recorded. `how`: "final" for the reads at the end."""
        handle = self.recorder.invoke(process, f, key, value, client=place, **how)
        deadline_ms = 10_000 if how else DEADLINE_MS
        try:
            reply = await self._call(f, place, key, value, deadline_ms, last=bool(how))
            self.recorder.ok(handle, value=reply.value if f == "read" else value, node=reply.node)
        except NotFound:
            self.recorder.ok(handle, value=None)
        except (Definite, Indefinite) as error:
            ended = f == "read" or isinstance(error, Definite)
            (self.recorder.fail if ended else self.recorder.info)(handle, error=str(error))

    async def _call(
        self, f: str, place: str, key: str, value: Any, deadline_ms: int, *, last: bool
    ) -> Reply:
        reachable = self.sides.reachable(place)
        node, consistency = None, "linearizable"
        if self.setting.protocol != "raft":
            homes = preference(key, tuple(self.cluster.nodes))[:REPLICAS]
            node = next((home for home in homes if home in reachable), homes[0])
            consistency = "all" if last else ("eventual", "quorum", "all")[self.setting.read - 1]
        client = self._client(place, tuple(reachable if node is None else self.cluster.nodes))
        if f == "read":
            return await client.get(key, consistency=consistency, node=node,
                                    deadline_ms=deadline_ms)  # fmt: skip
        return await client.put(key, value, node=node, deadline_ms=deadline_ms)

    def _client(self, place: str, nodes: tuple[str, ...]) -> KvClient:
        if (place, nodes) not in self.clients:
            addresses = {node: self.cluster.address(place, node) for node in nodes}
            self.clients[place, nodes] = KvClient(addresses, random=Random(f"{place} {nodes}"))
        return self.clients[place, nodes]


async def _strike(sides: Sides) -> None:
    """The timetable; times count from the load's beginning."""
    loop, cluster = asyncio.get_running_loop(), sides.cluster
    began = loop.time()

    async def at(seconds: float) -> None:
        await asyncio.sleep(began + seconds - loop.time())

    await at(CUT_S)
    await sides.set(cut=True)
    await at(WIPE_S)
    await cluster.kill(sides.wiped)
    await cluster.wipe(sides.wiped)
    await cluster.start(sides.wiped)
    await at(HEAL_S)
    await sides.set(cut=False)
    await at(KILL_S)
    await cluster.kill(sides.killed)
    await at(START_S)
    await cluster.start(sides.killed)


async def _run(setting: Setting, seed: int, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    spec = kv_cluster(NODES, protocol=setting.protocol, environment=setting.environment)
    async with SimulatedTestbed(directory) as testbed:
        with Recorder(directory / "history.jsonl", lambda: int(loop.time() * 1e9)) as recorder:
            async with testbed.cluster(spec, directory) as cluster:
                sides = Sides(cluster, Random(f"sides {seed}"))
                load_ = Load(setting, cluster, recorder, sides)
                try:
                    await sides.set(cut=False)
                    await cluster.ready()
                    await asyncio.gather(load_.run(Random(f"load {seed}")), _strike(sides))
                    await until(partial(_quiet, cluster), QUIET_WITHIN_S, "all hints handed over")
                    keys = [*load_.once, *(f"register-{each}" for each in range(REGISTERS))]
                    for number, key in enumerate(keys):
                        await load_.ask("read", "c1", key, None, process=10**6 + number, final=True)
                finally:
                    for client in load_.clients.values():
                        await client.close()


async def _quiet(cluster: SimulatedCluster) -> bool:
    await cluster.ready(within_s=QUIET_WITHIN_S)
    return all(
        said and not said.get("hints") and not said.get("in_flight")
        for said in (await cluster.statuses()).values()
    )


def run(work: tuple[Setting, int]) -> Outcome:
    """Carry it out and judge it; a function of setting and seed, if the checker has the time."""
    setting, seed = work
    with tempfile.TemporaryDirectory(prefix="faultline-frontier-") as name:
        with asyncio.Runner(loop_factory=partial(new_loop, seed)) as runner:
            runner.run(_run(setting, seed, Path(name)))
        history = load(Path(name) / "history.jsonl")
    return judge(setting.name, seed, history)


def judge(setting: str, seed: int, history: History) -> Outcome:
    """The figures of one history."""
    asked = [op for op in history.ops if not op.extra.get("final")]
    took_ms = sorted(
        (op.return_ns - op.invoke_ns) / 1e6
        for op in asked
        if op.type == "ok" and op.return_ns is not None
    )
    reads = [op for op in asked if op.f == "read" and op.type == "ok"]
    lost = check_lost_writes(History([op for op in history.ops if _once(op)], []))
    registers = History([op for op in history.ops if not _once(op)], [])
    order = check_linearizable(registers, "register", timeout_s=20)
    return Outcome(
        setting=setting,
        seed=seed,
        asked=len(asked),
        answered=len(took_ms),
        p99_ms=percentile(took_ms, 99),
        reads=len(reads),
        stale=sum(is_stale(read, history.ops) for read in reads),
        acknowledged=lost.stats["acknowledged"],
        lost=len(lost.stats["lost_writes"]),
        linearizable=None if order.valid == "unknown" else order.valid,
    )


def _once(op: Op) -> bool:
    return (op.key or "").startswith("once-")


def is_stale(read: Op, ops: list[Op]) -> bool:
    """Did it return what had certainly been replaced when it began?

    Some write of the key was acknowledged before the read began, and what was read is nothing, or
    was acknowledged before that write was asked for.
    """
    writes = [op for op in ops if op.f == "write" and op.key == read.key and op.type != "fail"]
    source = next((op for op in writes if op.value == read.output), None)
    newer = [
        op for op in writes
        if op.type == "ok" and op.return_ns is not None and op.return_ns < read.invoke_ns
    ]  # fmt: skip
    if source is None:
        return read.output is None and bool(newer)
    if source.type != "ok" or source.return_ns is None:
        return False
    return any(op.invoke_ns > source.return_ns for op in newer)
