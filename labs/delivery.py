"""Does a message take effect once, although everything between may fail?

Claim.    With ids kept in the same step as the effect, a transactional outbox at the producer and
          (on Apache Kafka) transactions across topics, each message takes effect exactly once.
Method.   Two producers send; groups of two consumers process. While messages are in flight one
          consumer of each group is killed together with a producer that is cut off from the broker;
          then the other consumer is paused until its partitions are taken away, and resumed.
Control.  The same without ids, outbox and transactions: to commit after the effect repeats
          messages, to commit before it loses some, and to write twice loses orders.
"""

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.testbed.description import ClusterSpec, MemberSpec
from labs.harness.workloads.consumer_groups import (
    at_work,
    consumers,
    drained,
    groups_of,
    owned,
    producers,
)
from labs.harness.workloads.messages import MessageWorkload, read_orders
from labs.scenarios.delivery import judge

SETTINGS = {
    "CONSUMER_SESSION_TIMEOUT_MS": "2000",  # a dead consumer's partitions go to others after that
    "CONSUMER_COMMIT_INTERVAL_MS": "1000",  # what was done since the last commit is done again
    "CONSUMER_SERVICE_TIME_MS": "500", "CONSUMER_CONCURRENCY": "256",  # thirty at a time in flight
}
CAREFUL = {"ledger": {"CONSUMER_GUARANTEE": "effectively_once"},
           "copies": {"CONSUMER_GUARANTEE": "transactional", "CONSUMER_SINK": "topic"}}
NAIVE = {"after": {"CONSUMER_GUARANTEE": "at_least_once"},
         "before": {"CONSUMER_GUARANTEE": "at_most_once"},
         "copies": {"CONSUMER_GUARANTEE": "at_least_once", "CONSUMER_SINK": "topic"}}


def cluster(publish: str, groups: dict[str, dict[str, str]]) -> ClusterSpec:
    senders = producers(("p1", "p2"), {**SETTINGS, "CONSUMER_PUBLISH": publish})
    groups = {name: {**SETTINGS, **settings} for name, settings in groups.items()}
    members = (MemberSpec("kafka", "kafka"), MemberSpec("redis", "redis"))
    return ClusterSpec("delivery", senders + consumers(groups), ("c1",), False, members)


async def scenario(stage: Stage) -> None:
    groups = groups_of(stage)
    firsts, seconds = ([nodes[at] for nodes in groups.values()] for at in (0, 1))
    load = MessageWorkload("c1", ("p1", "p2"), seed=stage.seed, rate_per_s=60, keys=120)
    await stage.cluster.ready(60)
    async with stage.running(load):
        await owned(stage, firsts + seconds)
        await stage.require(lambda: len(load.acknowledged) >= 100, within_s=20, what="100 messages")
        stage.tell(f"{' and '.join(groups)} consume; {len(load.acknowledged)} messages sent")
        await kill(stage, load, firsts, seconds)
        async with stage.fault(stage.nemesis.pause(seconds), f"paused: {' '.join(seconds)}"):
            await owned(stage, firsts)
        await owned(stage, firsts + seconds)
        since = stage.now_ns()
        await stage.require(lambda: load.of("p1", since), within_s=20, what="p1 sends again")
    await drained(stage, groups)
    await judge(stage, load, groups)


async def kill(stage: Stage, load: MessageWorkload, firsts: list[str], seconds: list[str]) -> None:
    async with stage.fault(stage.nemesis.blackhole(("p1", "kafka")), "p1 misses the broker") as cut:
        before = await read_orders(stage.cluster)

        async def orders() -> bool:
            new = await read_orders(stage.cluster) - before
            return len([each for each in new if ".p1-" in each]) >= 20 and bool(load.of("p2", cut))

        await stage.require(orders, within_s=20, what="20 orders that nobody has heard of")
        dead = ["p1", *firsts]
        await at_work(stage, firsts)
        async with stage.fault(stage.nemesis.kill(dead), f"killed: {' '.join(dead)}"):
            await owned(stage, seconds)
        await owned(stage, firsts + seconds)


def answer(results: Results) -> str:
    careful, naive = (result.figures for result in results.values())
    return f"""
        Nothing delivers exactly once: between an effect and the commit that tells of it there is
        always a moment to die in. So choose what a crash does. Commit first, and it loses: here
        {naive["lost"]} of {naive["acknowledged"]} messages. Commit afterwards, and it repeats:
        {naive["twice"]} took effect twice after a kill and a rebalance.

        What one can have is an effect that takes place once. Keep the message's id in the same
        atomic step: {careful["twice"]} of {careful["acknowledged"]} took effect twice. If the
        effect is a record in Kafka, a transaction commits result and offset together.

        The producer has the same gap. To write to the database and then to the broker left
        {naive["unheard"]} of {naive["orders"]} orders that nobody heard of; with an outbox, written
        in the same transaction and relayed with retries, it was {careful["unheard"]}.
    """


LAB = Lab(
    name="delivery", questions=(20,), scenario=scenario, answer=answer,
    question="At most once, at least once, exactly once: what can a queue promise?",
    variants=(
        Variant("effectively once", "holds", "ids beside effects, an outbox, transactions",
                lambda _: cluster("outbox", CAREFUL)),
        Variant("commit and hope", "breaks", "commits after or before the effect, writes twice",
                lambda _: cluster("dual_write", NAIVE)),
    ),
    predictions=(
        Prediction("Offsets are committed after each effect. Will a kill repeat messages?",
                   lambda results: results["commit and hope"].figures["twice"] > 0,
                   "what was done since the last commit is done again by whoever comes next."),
        Prediction("An order is saved and then sent. Will each one saved be heard of?",
                   lambda results: results["commit and hope"].figures["unheard"] == 0,
                   "the process died between the two."),
    ),
    follow_ups={
        "Does Kafka not have exactly once?": "From topic to topic, by transactions, for readers of "
            "committed data. A database, a mail or a payment is outside of them.",
        "How long must ids be kept?": "Longer than any redelivery can come late. Here a day.",
        "What does a paused consumer do when it wakes?": "What it had begun: its commits are "
            "refused, its effects are duplicates, its transactions are fenced off.",
    },
    misses="One broker without replicas, and a relay that polls, where real ones read the "
           "database's log (change data capture).",
    comparison=(
        ("sent messages without effect", "{lost} of {acknowledged}"),
        ("messages with several effects", "{twice}"),
        ("orders that nobody heard of", "{unheard} of {orders}"),
        ("results written more than once", "{copies}"),
    ),
)
