"""Groups of consumers in a lab: how they are described, and waiting for what they do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from labs.harness.lab.stage import InvalidRun, Stage
from labs.harness.testbed.description import NodeSpec
from labs.harness.workloads import kafka_log
from labs.harness.workloads.messages import read_ledger

GROUP = "CONSUMER_GROUP"
TOPIC, PARTITIONS = "messages", 4  # as the service has them unless it is told otherwise


def consumers(
    groups: Mapping[str, Mapping[str, str]], size: int = 2, dials: tuple[str, ...] | None = None
) -> tuple[NodeSpec, ...]:
    """`size` consumers of each group: `<group>-1`, `<group>-2` …, with the group's settings."""
    return tuple(
        NodeSpec(f"{group}-{number}", "consumer", {**settings, GROUP: group}, dials)
        for group, settings in groups.items()
        for number in range(1, size + 1)
    )


def producers(
    names: Iterable[str], settings: Mapping[str, str], dials: tuple[str, ...] | None = None
) -> tuple[NodeSpec, ...]:
    """Producers that consume nothing."""
    return tuple(
        NodeSpec(name, "consumer", {**settings, "CONSUMER_SINK": "none"}, dials) for name in names
    )


def has_transactions(stage: Stage, member: str = "kafka") -> bool:
    """Is the broker Apache Kafka? The embedded one knows no transactions."""
    return stage.cluster.member_flavour(member).startswith("apache kafka")


def groups_of(stage: Stage) -> dict[str, list[str]]:
    """The variant's consumers by group, without those whose transactions the broker does not
    know."""
    found: dict[str, list[str]] = {}
    for node in stage.cluster.spec.nodes:
        transactional = node.environment.get("CONSUMER_GUARANTEE") == "transactional"
        wanted = node.name in stage.result.nodes and GROUP in node.environment
        if wanted and (not transactional or has_transactions(stage)):
            found.setdefault(node.environment[GROUP], []).append(node.name)
    return found


def senders_of(stage: Stage) -> tuple[str, ...]:
    """The variant's producers."""
    nodes = stage.cluster.spec.nodes
    own = [node.name for node in nodes if node.environment.get("CONSUMER_SINK") == "none"]
    return tuple(name for name in own if name in stage.result.nodes)


async def _all(
    stage: Stage, nodes: list[str], condition: Callable[[Mapping[str, Any]], Any]
) -> dict[str, Mapping[str, Any]]:
    """The statuses of these nodes, if `condition` is true of each; else empty.

    Made to be asked over and over of a dozen nodes, on the cores that these need themselves: the
    one of which it was not true, moved to the front of `nodes`, is asked alone the next time, and
    the others only when it has come round.
    """

    async def told(names: list[str]) -> dict[str, Mapping[str, Any]]:
        answers = await asyncio.gather(*map(stage.cluster.status, names))
        found: dict[str, Mapping[str, Any]] = {
            name: each for name, each in zip(names, answers, strict=True) if each
        }
        missing = [name for name in names if not (name in found and condition(found[name]))]
        for name in missing[:1]:
            nodes.remove(name)
            nodes.insert(0, name)
        return {} if missing else found

    if not await told(nodes[:1]):
        return {}
    return await told(nodes)


async def owned(stage: Stage, nodes: Iterable[str], partitions: int = PARTITIONS) -> None:
    """Until each of these consumers has some of its group's partitions, and together all."""
    wanted = list(nodes)

    async def all_taken() -> bool:
        statuses = await _all(stage, wanted, lambda status: status["partitions"])
        counts: Counter[str] = Counter()
        for node, status in statuses.items():
            counts[node.rpartition("-")[0]] += len(status["partitions"])
        return bool(counts) and all(count == partitions for count in counts.values())

    what = f"{' '.join(wanted)} have all partitions of their groups"
    await stage.require(all_taken, within_s=90, what=what)


async def at_work(stage: Stage, nodes: Iterable[str], records: int = 5) -> None:
    """Until each of these consumers has that many records in flight: a kill shall catch some."""
    wanted = list(nodes)

    async def busy() -> bool:
        return bool(await _all(stage, wanted, lambda status: status["in_flight"] >= records))

    what = f"{records} records in flight at each of {' '.join(wanted)}"
    await stage.require(busy, within_s=60, what=what)


async def drained(
    stage: Stage, groups: Iterable[str], last: Mapping[str, str] | None = None
) -> None:
    """Until outboxes are empty, and the groups have been given all that was sent, and done it.

    Kafka knows what a group has not committed. RabbitMQ tells how many messages wait in a queue,
    and not how many are on their way to a consumer; so `last` has, by group, the id of the one
    message that was sent after all others. They come in order: once that one has taken effect,
    none is on its way.
    """
    specs, wanted, queued = stage.cluster.spec.nodes, frozenset(groups), dict(last or {})
    topics = {
        node.environment[GROUP]: node.environment.get("CONSUMER_TOPIC", TOPIC)
        for node in specs
        if node.environment.get(GROUP) in wanted
    }
    awaited = [
        node.name
        for node in specs
        # With others its broker knows no transactions, so that it never finishes.
        if node.environment.get("CONSUMER_GUARANTEE") != "transactional"
        or node.environment[GROUP] in topics
    ]

    async def idle() -> bool:
        if await _all(stage, awaited, lambda told: not told["in_flight"] + told["outbox"]):
            return True
        left[:] = [f"{awaited[0]} has something under way"]
        return False

    async def all_given() -> bool:
        asked = [kafka_log.behind(stage.cluster, *each, PARTITIONS) for each in topics.items()]
        behind = await asyncio.gather(*asked)
        left[:] = [f"{group} {count} behind" for group, count in zip(topics, behind, strict=True)]
        for group, name in list(queued.items()):
            if name in (await read_ledger(stage.cluster, group)).times:
                del queued[group]
        left.extend(f"{group} has not done {name}" for group, name in queued.items())
        return not any(behind) and not queued

    async def nothing_left() -> bool:
        # Idle at first, to ask brokers seldom; and afterwards, for what they gave meanwhile.
        return await idle() and await all_given() and await idle()

    left: list[str] = []
    if await stage.eventually(nothing_left, within_s=90, what="everything done") is None:
        raise InvalidRun(f"not done within 90 s: {', '.join(left)}")


async def busiest(stage: Stage, nodes: Iterable[str]) -> str:
    """Of these consumers the one that has received most: of a queue that has one active
    consumer at a time, that one."""
    statuses = await stage.cluster.statuses()

    def received(node: str) -> int:
        status = statuses[node]
        return int(status["counts"].get("received", 0)) if status else -1

    return max(nodes, key=received)


def latencies_ms(stage: Stage, nodes: Iterable[str], since_ns: int) -> list[float]:
    """From sending to effect, of what these consumers applied at `since_ns` or later."""
    return [
        event["duration_us"] / 1000
        for node in nodes
        for event in stage.protocol_events(node, "consume", since_ns=since_ns)
        if event["outcome"] == "ok"
    ]


def repeated(stage: Stage, nodes: Iterable[str]) -> int:
    """How many records these consumers found to have taken effect before."""
    events = (stage.protocol_events(node, "consume", since_ns=0) for node in nodes)
    return sum(event["outcome"] == "duplicate" for some in events for event in some)
