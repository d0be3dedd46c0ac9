"""What lab-delivery looks at in the end: effects in Redis, orders, results in Kafka."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from labs.harness.workloads import kafka_log
from labs.harness.workloads.messages import MessageWorkload, read_ledger, read_orders

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage


async def judge(stage: Stage, load: MessageWorkload, groups: dict[str, list[str]]) -> None:
    after, before = [await read_ledger(stage.cluster, name) for name in
                     (("ledger", "ledger") if "ledger" in groups else ("after", "before"))]
    orders, acknowledged = await read_orders(stage.cluster), load.acknowledged
    unheard = orders - after.times.keys()
    lost = [name for name in before.lost(acknowledged) if name not in unheard]
    twice, unordered = after.repeated(), after.out_of_order()
    stage.figures(acknowledged=len(acknowledged), lost=len(lost), twice=len(twice), copies="–",
                  orders=len(orders), unheard=len(unheard))
    stage.claim("No message that the broker has is lost", not lost, f"{len(lost)} of "
                f"{len(acknowledged)} never took effect, though sent", control_breaks=True)
    stage.claim("No message takes effect twice", not twice, f"{len(twice)} of "
                f"{len(after.times)} took effect more than once", control_breaks=True)
    stage.claim("Every order is heard of", not unheard, f"{len(unheard)} of {len(orders)} orders in"
                " the producers' database never became a message", control_breaks=True)
    stage.claim("Messages of a key take effect in order", not unordered,
                f"{len(after.applied) - len(unordered)} of {len(after.applied)} keys did")
    if "copies" not in groups:
        stage.needs("Across topics, each record has one result", "Apache Kafka")
        return
    results = await kafka_log.records(stage.cluster, "results")
    again = sum(count > 1 for count in Counter(each["origin"] for each in results).values())
    missing = len(after.times.keys() - {each["id"] for each in results})
    stage.figures(copies=again)
    stage.claim("Across topics, each record has one result", not again and not missing,
                f"{again} of {len(results)} have several, {missing} none", control_breaks=True)
