"""Groups of consumers in a lab: how they are described, and waiting for what they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from labs.harness.lab.stage import InvalidRun, Stage
from labs.harness.testbed.description import NodeSpec
from labs.harness.workloads import kafka_log, rabbitmq_queue

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
    """The consumers by group, without those whose transactions the broker does not know."""
    found: dict[str, list[str]] = {}
    for node in stage.cluster.spec.nodes:
        transactional = node.environment.get("CONSUMER_GUARANTEE") == "transactional"
        if GROUP in node.environment and (not transactional or has_transactions(stage)):
            found.setdefault(node.environment[GROUP], []).append(node.name)
    return found


async def owned(stage: Stage, nodes: Iterable[str], partitions: int = PARTITIONS) -> None:
    """Until each of these consumers has some of its group's partitions, and together all."""
    wanted = tuple(nodes)

    async def all_taken() -> bool:
        statuses = await stage.cluster.statuses()
        counts: Counter[str] = Counter()
        for node in wanted:
            status = statuses[node]
            if status is None or not status["partitions"]:
                return False
            counts[node.rpartition("-")[0]] += len(status["partitions"])
        return all(count == partitions for count in counts.values())

    what = f"{' '.join(wanted)} have all partitions of their groups"
    await stage.require(all_taken, within_s=90, what=what)


async def at_work(stage: Stage, nodes: Iterable[str], records: int = 5) -> None:
    """Until each of these consumers has that many records in flight: a kill shall catch some."""
    wanted = tuple(nodes)

    async def busy() -> bool:
        statuses = await stage.cluster.statuses()
        told = [statuses[node] for node in wanted]
        return all(status is not None and status["in_flight"] >= records for status in told)

    what = f"{records} records in flight at each of {' '.join(wanted)}"
    await stage.require(busy, within_s=60, what=what)


async def drained(stage: Stage, groups: Iterable[str], queues: Iterable[str] = ()) -> None:
    """Until outboxes and `queues` are empty, and the groups have committed all, and done it."""
    wanted = tuple(groups)
    idle = {
        node.name
        for node in stage.cluster.spec.nodes
        if node.environment.get("CONSUMER_GUARANTEE") == "transactional"
        and node.environment[GROUP] not in wanted
    }

    async def nothing_left() -> bool:
        for node, status in (await stage.cluster.statuses()).items():
            if node in idle:
                continue  # its broker knows no transactions, so that it never finishes
            if status is None or status["in_flight"] or status["outbox"]:
                left[:] = [f"{node}: {status and (status['in_flight'], status['outbox'])}"]
                return False
        behind = [await kafka_log.behind(stage.cluster, each, TOPIC, PARTITIONS) for each in wanted]
        left[:] = [f"{group} {count} behind" for group, count in zip(wanted, behind, strict=True)]
        ready = [await rabbitmq_queue.count(stage.cluster, queue) for queue in queues]
        left.extend(f"{count} in a queue" for count in ready)
        return not any(behind + ready)

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
