"""The parts of lab-replication: who writes, how late a replica is, how reads scale, what is gone.

(A lab file is one page. `labs/replication.py` tells the story.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from labs.harness.checkers import check_lost_writes
from labs.harness.history import load
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.open_loop import Answered, Drawn, OpenLoop
from labs.harness.workloads.statistics import percentile
from labs.harness.workloads.tracing import new_trace
from services.chassis.errors import (
    Definite,
    Indefinite,
    NotFound,
    NotLeader,
    ServiceError,
    Unavailable,
)
from services.kv.client import KvClient, Reply

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

DEADLINE_MS = 500
PATIENCE_MS = 10_000
READERS_EACH = 4  # for each replica that is read from
READS_EACH = 16
PAIRS = 10
SAMPLES = 3
TRIES = 10


class System(NamedTuple):
    """What a variant is. `waits_for`: how many other replicas a write waits for. `single`: one node
    orders all writes. `anywhere`, `certain`: the words for a read of the replica that is asked, and
    for one that finds what was acknowledged, if it is there."""

    waits_for: int
    single: bool
    anywhere: str
    certain: str


def clients(cluster: Cluster, place: str) -> KvClient:
    addresses = {node: cluster.address(place, node) for node in cluster.nodes}
    return KvClient(addresses, random=Random(place))


async def put_near(
    client: KvClient,
    node: str,
    key: str,
    value: Any,
    headers: Mapping[str, str],
    deadline_ms: int = DEADLINE_MS,
) -> Reply:
    """Write at `node`; where that can't, at the one it names, or the next. Each is asked once."""
    left = [node, *(each for each in client.addresses if each != node)]
    while True:
        target = left.pop(0)
        try:
            return await client.put(
                key, value, node=target, deadline_ms=deadline_ms, headers=headers
            )
        except (NotLeader, Unavailable) as elsewhere:  # definite: it was not done there
            if not left:
                raise
            hint = getattr(elsewhere, "leader", None)
            left.sort(key=lambda each: each != hint)  # False first; the others stay as they are


class Adds(OpenLoop):
    """Writes a new key each, at the node beside `place` or wherever that leads."""

    def __init__(self, place: str, node: str, *, seed: int, rate_per_s: float) -> None:
        super().__init__(place, seed=seed, rate_per_s=rate_per_s)
        self.node = node
        self.sent = 0
        self.keys: list[str] = []
        self.kept: list[str] = []  # of acknowledged writes

    async def open(self, cluster: Cluster) -> None:
        self._client = clients(cluster, self.place)

    async def close(self) -> None:
        await self._client.close()

    def draw(self, random: Random) -> Drawn:
        self.sent += 1
        key, value = f"once-{self.place}-{self.sent}", self.sent
        self.keys.append(key)

        async def write(headers: Mapping[str, str]) -> Answered:
            asked = self.node
            try:
                reply = await put_near(self._client, asked, key, value, headers)
            except Indefinite:
                if self.node == asked:  # it may be gone: the next write begins elsewhere
                    nodes = [*self._client.addresses]
                    self.node = nodes[(nodes.index(asked) + 1) % len(nodes)]
                raise
            self.node = reply.node
            self.kept.append(key)
            return Answered(value, reply.node)

        return Drawn("write", key, value, write)

    def acknowledged(self, since_ns: int = 0) -> list[float]:
        """How long each acknowledged write took that was sent since then, in ms."""
        return [each.ms for each in self.since(since_ns) if each.type == "ok"]


class Desk:
    """Operations one by one, each in the history, from `place`. Close it."""

    def __init__(self, stage: Stage, place: str) -> None:
        self._recorder, self._place = stage.recorder, place
        self._client = clients(stage.cluster, place)
        self.keys: list[str] = []

    async def close(self) -> None:
        await self._client.close()

    async def write(self, node: str, key: str, value: Any) -> Reply | None:
        """None when it was not acknowledged."""
        self.keys.append(key)
        recorder, trace = self._recorder, new_trace()
        handle = recorder.invoke(
            recorder.new_process(), "write", key, value, client=self._place, **trace.fields
        )
        try:
            reply = await put_near(self._client, node, key, value, trace.headers, PATIENCE_MS)
        except ServiceError as error:
            keep = recorder.fail if isinstance(error, Definite) else recorder.info
            keep(handle, error=str(error))
            return None
        recorder.ok(handle, version=reply.version, node=reply.node)
        return reply

    async def read(self, node: str | None, key: str, consistency: str, **extra: Any) -> Any:
        """The value at `node` (None: wherever it leads); None when it has none, or is silent."""
        recorder, trace = self._recorder, new_trace()
        handle = recorder.invoke(
            recorder.new_process(), "read", key, None, client=self._place, **extra, **trace.fields
        )
        try:
            reply = await self._client.get(
                key,
                node=node,
                consistency=consistency,
                deadline_ms=PATIENCE_MS,
                headers=trace.headers,
            )
        except NotFound:
            recorder.ok(handle, value=None)
            return None
        except (Definite, Indefinite) as error:
            recorder.fail(handle, error=str(error))
            return None
        recorder.ok(handle, value=reply.value, version=reply.version, node=reply.node)
        return reply.value

    async def read_all(
        self, keys: Sequence[str], nodes: Sequence[str | None], consistency: str, **extra: Any
    ) -> list[Any]:
        """The values of these keys, asked of `nodes` in turn, several at a time."""
        gate = asyncio.Semaphore(READERS_EACH * len(nodes))

        async def one(at: int, key: str) -> Any:
            async with gate:
                return await self.read(nodes[at % len(nodes)], key, consistency, **extra)

        return await asyncio.gather(*(one(at, key) for at, key in enumerate(keys)))


async def replication_lag(stage: Stage, desk: Desk, system: System, leader: str, far: str) -> float:
    """How long after its acknowledgement a write showed at the replica `far`: the median of some,
    in ms, each asked for again and again."""
    lags: list[float] = []
    for sample in range(SAMPLES):
        key = f"lag-{sample}"

        async def written(key: str = key, sample: int = sample) -> Reply | None:
            return await desk.write(leader, key, sample)

        await stage.require(written, within_s=10, what=f"{key} is acknowledged")
        since = stage.now_ns()

        async def shows(key: str = key) -> bool:
            return await desk.read(far, key, system.anywhere) is not None

        await stage.require(shows, within_s=10, what=f"{far} shows {key}")
        lags.append((stage.now_ns() - since) / 1e6)
    return percentile(lags, 50)


async def conflicts(stage: Stage, desk: Desk, system: System, one: str, other: str) -> None:
    """The same keys, each written at two nodes at once: who ordered them, or who told of it?"""
    keys = [f"pair-{number}" for number in range(PAIRS)]
    writes = [desk.write(node, key, f"{node} of {key}") for key in keys for node in (one, other)]
    replies = await asyncio.gather(*writes)
    both = list(zip(replies[::2], replies[1::2], strict=True))
    apart = sum(a is not None and b is not None and a.node != b.node for a, b in both)
    taken = sum(reply is not None for reply in replies)
    near = [node for node in stage.cluster.nodes if node != other]  # its quorums take a trip longer

    async def all_found() -> bool:
        told = _conflicting(stage, keys)
        await desk.read_all([key for key in keys if key not in told], near, system.certain)
        return len(_conflicting(stage, keys)) >= apart

    if apart:  # on a slow machine some are not at once: then one leader had seen the other's
        await stage.eventually(all_found, within_s=3, what=f"{apart} conflicts are told")
    found = len(_conflicting(stage, keys))
    stage.figures(conflicts=found)
    stage.claim(
        "Two writes of a key at once are ordered by one node, or told to be in conflict",
        taken == len(replies)
        and (not (apart or found) if system.single else bool(apart and found)),
        f"of {PAIRS} keys {apart} were taken by two nodes, {found} told as conflicts; "
        f"{taken} of {len(replies)} writes acknowledged",
    )


def _conflicting(stage: Stage, keys: Sequence[str]) -> set[str]:
    """Of `keys` those told of: by a leader that settled it, or by a read that found siblings."""
    told = [
        event.get("key", event.get("path", "").removeprefix("/kv/"))
        for node in stage.cluster.nodes
        for event in stage.protocol_events(node, "conflict", "request")
        if event["event"] == "conflict" or event.get("siblings", 0) > 1
    ]
    return {*told} & {*keys}


async def read_scaling(stage: Stage, desk: Desk, system: System) -> None:
    """Reads a second from one replica, and from all; each of them has the same fixed capacity."""

    async def rate(nodes: Sequence[str]) -> float:
        keys, began = ["lag-0"] * (READS_EACH * len(nodes)), stage.now_ns()
        values = await desk.read_all(keys, nodes, system.anywhere)
        return sum(v is not None for v in values) / ((stage.now_ns() - began) / 1e9)

    nodes, one, every = stage.cluster.nodes, 0.0, 0.0
    for _ in range(TRIES):  # a capacity is a most: what else runs here can only take from it
        one, every = max(one, await rate(nodes[:1])), max(every, await rate(nodes))
        if every > 1.8 * one:
            break
    stage.figures(reads_one=one, reads_all=every)
    stage.claim(
        "Each replica that may be read from adds its capacity",
        every > 1.8 * one,
        f"{one:.0f} reads a second from one replica, {every:.0f} from {len(nodes)}",
    )


async def roles(stage: Stage, system: System) -> tuple[str, str, str]:
    """The leader, or who stands for one, and the others in order: what naive promotion goes by."""
    leader = await stage.primary() if system.single else stage.cluster.nodes[0]
    first, second = (node for node in stage.cluster.nodes if node != leader)
    return leader, first, second


async def alike(stage: Stage, *, within_s: float) -> None:
    """Wait until all nodes have the same."""

    async def level() -> bool:
        statuses = list((await stage.cluster.statuses()).values())
        has = [
            each.get("digest", (each.get("applied_index"), each.get("last_index")))
            for each in statuses
            if each is not None
        ]
        return len(has) == len(statuses) and len(set(has)) == 1

    await stage.require(level, within_s=within_s, what="all nodes have the same")


async def missing(desk: Desk, system: System, kept: Sequence[str], nodes: list[str]) -> int:
    """How many of these acknowledged keys none of `nodes` has."""
    each = await asyncio.gather(*(desk.read_all(kept, [node], system.anywhere) for node in nodes))
    return sum(all(value is None for value in found) for found in zip(*each, strict=True))


async def sent(stage: Stage, load: Adds, writes: int) -> None:
    """Wait until so many more are sent, whatever becomes of them."""
    goal = load.sent + writes
    what = f"{writes} more writes sent at {load.place}"
    await stage.require(lambda: load.sent >= goal, within_s=20, what=what)


async def what_is_lost(stage: Stage, desk: Desk, system: System, keys: Sequence[str]) -> None:
    """All are up and have the same: read every key once more, and let the checker judge."""
    await desk.read_all([*keys, *desk.keys], list(stage.cluster.nodes), system.anywhere, final=True)
    result = check_lost_writes(load(stage.history_path))
    lost, acknowledged = len(result.stats["lost_writes"]), result.stats["acknowledged"]
    stage.figures(lost=lost, acknowledged=acknowledged)
    stage.claim(
        "After the failover no acknowledged write is lost",
        result,
        f"{lost} of {acknowledged} acknowledged writes are gone",
        control_breaks=True,
    )
