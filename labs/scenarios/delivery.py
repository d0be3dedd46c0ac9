"""What lab-delivery looks at in the end: effects in Redis, orders, results in Kafka."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from labs.harness.workloads import kafka_log
from labs.harness.workloads.consumer_groups import senders_of
from labs.harness.workloads.messages import MessageWorkload, read_ledger, read_orders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labs.harness.lab.stage import Stage


def orders_of(orders: set[str], producers: Sequence[str]) -> set[str]:
    """Those that these producers took."""
    heads = tuple(f"{producer}-" for producer in producers)
    return {name for name in orders if name.partition(".")[2].startswith(heads)}


async def unheard(stage: Stage, producers: Sequence[str], count: int) -> None:
    """Until each of these producers, cut off from the broker, has taken so many orders more."""
    before = await read_orders(stage.cluster)

    async def taken() -> bool:
        new = await read_orders(stage.cluster) - before
        return all(len(orders_of(new, [each])) >= count for each in producers)

    await stage.require(taken, within_s=20, what=f"{count} orders that nobody has heard of")


def topic_of(stage: Stage) -> str:
    """The one that the variant's producers send to."""
    sender = senders_of(stage)[0]
    settings = next(node for node in stage.cluster.spec.nodes if node.name == sender).environment
    return settings["CONSUMER_TOPIC"]


async def judge(stage: Stage, load: MessageWorkload, groups: dict[str, list[str]]) -> None:
    after, before = [await read_ledger(stage.cluster, name) for name in
                     (("ledger", "ledger") if "ledger" in groups else ("after", "before"))]
    producers = senders_of(stage)
    orders = orders_of(await read_orders(stage.cluster), producers)
    orders |= {each.id for name in producers for each in load.of(name)}  # told to be kept
    # The broker's own log says what it has, and not what has come of it.
    has = {each["id"] for each in await kafka_log.records(stage.cluster, topic_of(stage))}
    secret, lost = orders - has, has - before.times.keys()
    twice, unordered = after.repeated(), after.out_of_order()
    stage.figures(sent=len(has), lost=len(lost), twice=len(twice), copies="–",
                  orders=len(orders), unheard=len(secret))
    stage.claim("No message that the broker has is lost", not lost, f"{len(lost)} of {len(has)} "
                "in its log never took effect", control_breaks=True)
    stage.claim("No message takes effect twice", not twice, f"{len(twice)} of "
                f"{len(after.times)} took effect more than once", control_breaks=True)
    stage.claim("Every order is heard of", not secret, f"{len(secret)} of {len(orders)} orders that"
                " producers accepted never became a message", control_breaks=True)
    stage.claim("Messages of a key take effect in order", not unordered,
                f"{len(after.applied) - len(unordered)} of {len(after.applied)} keys did")
    workers = {node for nodes in groups.values() for node in nodes}
    topics = {node.environment["CONSUMER_RESULTS"] for node in stage.cluster.spec.nodes
              if node.name in workers and node.environment.get("CONSUMER_SINK") == "topic"}
    if not topics:
        stage.needs("Across topics, each record has one result", "Apache Kafka")
        return
    results = await kafka_log.records(stage.cluster, topics.pop())
    again = sum(count > 1 for count in Counter(each["origin"] for each in results).values())
    missing = len(after.times.keys() - {each["id"] for each in results})
    stage.figures(copies=again)
    stage.claim("Across topics, each record has one result", not again and not missing,
                f"{again} of {len(results)} have several, {missing} none", control_breaks=True)
