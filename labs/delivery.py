"""Does a message take effect once, although everything between may fail?

Claim.    With ids kept in the same step as the effect, a transactional outbox at the producer and
          (on Apache Kafka) transactions across topics, each message takes effect exactly once.
Method.   Two producers send; groups of two consumers process. While messages are in flight one
          consumer of each group is killed together with a producer that is cut off from the broker;
          then the other consumer is paused until its partitions are taken away, and resumed.
Control.  The same without ids, outbox and transactions: to commit after the effect repeats
          messages, to commit before it loses some, and to write twice loses orders. It has a topic,
          producers and groups of its own on the same broker, and suffers the same at the same time.
"""

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.links.control import Link
from labs.harness.testbed.description import ClusterSpec, MemberSpec
from labs.harness.workloads.consumer_groups import (
    at_work,
    consumers,
    drained,
    groups_of,
    owned,
    producers,
    senders_of,
)
from labs.harness.workloads.messages import MessageWorkload
from labs.scenarios.delivery import judge, unheard

SETTINGS = {
    "CONSUMER_SESSION_TIMEOUT_MS": "1500",  # a dead consumer's partitions go to others after that
    "CONSUMER_COMMIT_INTERVAL_MS": "1000",  # what was done since the last commit is done again
    "CONSUMER_SERVICE_TIME_MS": "500", "CONSUMER_CONCURRENCY": "256",  # fifteen at a time in flight
}
CAREFUL = {"ledger": {"CONSUMER_GUARANTEE": "effectively_once"},
           "copies": {"CONSUMER_GUARANTEE": "transactional", "CONSUMER_SINK": "topic"}}
NAIVE = {"after": {"CONSUMER_GUARANTEE": "at_least_once"},
         "before": {"CONSUMER_GUARANTEE": "at_most_once"},
         "repeats": {"CONSUMER_GUARANTEE": "at_least_once", "CONSUMER_SINK": "topic"}}


def cluster(publish: str, senders: tuple[str, str], groups: dict[str, dict[str, str]]
            ) -> ClusterSpec:
    own = {**SETTINGS, "CONSUMER_TOPIC": publish, "CONSUMER_RESULTS": f"{publish}.results"}
    nodes = producers(senders, {**own, "CONSUMER_PUBLISH": publish})
    nodes += consumers({name: {**own, **settings} for name, settings in groups.items()})
    members = (MemberSpec("kafka", "kafka"), MemberSpec("redis", "redis"))
    return ClusterSpec("delivery", nodes, ("c1",), False, members)


async def scenario(stage: Stage) -> None:
    groups = {name: nodes for each in stage.together for name, nodes in groups_of(each).items()}
    firsts, seconds = ([nodes[at] for nodes in groups.values()] for at in (0, 1))
    senders = [senders_of(each) for each in stage.together]
    load = MessageWorkload("c1", tuple(name for each in senders for name in each),
                           seed=stage.seed, rate_per_s=30, keys=60)
    cut_off, others = zip(*senders, strict=True)
    await stage.cluster.ready(60)
    async with stage.running(load):
        await owned(stage, firsts + seconds)
        await stage.require(lambda: all(len(load.of(each)) >= 30 for each in load.producers),
                            within_s=20, what="30 messages from each producer")
        stage.tell(f"{' and '.join(groups)} consume; {len(load.acknowledged)} messages sent")
        link = [Link(each, "kafka") for each in cut_off]
        missed = f"{' and '.join(cut_off)} miss the broker"
        async with stage.fault(stage.nemesis.blackhole(link), missed) as cut:
            await unheard(stage, cut_off, 20)
            await stage.require(lambda: all(load.of(each, cut) for each in others),
                                within_s=20, what=f"{' and '.join(others)} send on")
            await at_work(stage, firsts)
            dead = [*cut_off, *firsts]
            async with stage.fault(stage.nemesis.kill(dead), f"killed: {' '.join(dead)}"):
                await owned(stage, seconds)
            await owned(stage, firsts + seconds)
        async with stage.fault(stage.nemesis.pause(seconds), f"paused: {' '.join(seconds)}"):
            await owned(stage, firsts)
        await owned(stage, firsts + seconds)
        since = stage.now_ns()
        await stage.require(lambda: all(load.of(each, since) for each in cut_off),
                            within_s=20, what=f"{' and '.join(cut_off)} send again")
    await drained(stage, groups)
    for each in stage.together:
        each.story.variant(each.result.name, each.result.expected, each.result.about)
        await judge(each, load, groups_of(each))


def answer(results: Results) -> str:
    careful, naive = (result.figures for result in results.values())
    return f"""
        Nothing delivers exactly once: between an effect and the commit that tells of it there is
        always a moment to die in. So choose what a crash does. Commit first, and it loses: here
        {naive["lost"]} of {naive["sent"]} messages. Commit afterwards, and it repeats:
        {naive["twice"]} took effect twice after a kill and a rebalance.

        What one can have is an effect that takes place once. Keep the message's id in the same
        atomic step: {careful["twice"]} of {careful["sent"]} took effect twice. If the
        effect is a record in Kafka, a transaction commits result and offset together.

        The producer has the same gap. To write to the database and then to the broker left
        {naive["unheard"]} of {naive["orders"]} orders that nobody heard of; with an outbox, written
        in the same transaction and relayed with retries, it was {careful["unheard"]}.
    """


LAB = Lab(
    name="delivery", questions=(20,), scenario=scenario, answer=answer, together=True,
    question="At most once, at least once, exactly once: what can a queue promise?",
    variants=(
        Variant("effectively once", "holds", "ids beside effects, an outbox, transactions",
                lambda _: cluster("outbox", ("p1", "p2"), CAREFUL)),
        Variant("commit and hope", "breaks", "commits after or before the effect, writes twice",
                lambda _: cluster("dual_write", ("q1", "q2"), NAIVE)),
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
        ("sent messages without effect", "{lost} of {sent}"),
        ("messages with several effects", "{twice}"),
        ("orders that nobody heard of", "{unheard} of {orders}"),
        ("results written more than once", "{copies}"),
    ),
)
