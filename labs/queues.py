"""A log or a queue: what do Kafka and RabbitMQ keep when consumers and brokers crash?

Claim.    Both deliver again what was not acknowledged, keep the order of a key, outlive their own
          crash with a backlog, and put poison aside. Kafka can be read again; RabbitMQ routes.
Method.   The same load and consumers on both: kill a consumer at work; when others have its share,
          pause these until a backlog stands; kill and start the brokers; let all of them go on.
          Then read what each still has.
Control.  The same consumers acknowledge before they process: a crash loses what was under way.
          They are groups of their own, and get the same messages from the same brokers.
"""

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.testbed.description import ClusterSpec, MemberSpec
from labs.harness.workloads import consumer_groups as groups
from labs.harness.workloads import rabbitmq_queue
from labs.harness.workloads.messages import MessageWorkload, send_poison
from labs.harness.workloads.statistics import percentile
from labs.scenarios.queues import NAMES, backlog, judge, throughput

POISON = 5
WORK = {"CONSUMER_SERVICE_TIME_MS": "300", "CONSUMER_CONCURRENCY": "128",
        "CONSUMER_SESSION_TIMEOUT_MS": "1500", "CONSUMER_COMMIT_INTERVAL_MS": "500"}


def cluster(guarantee: str, when: str) -> ClusterSpec:
    nodes = []
    for broker in NAMES:
        settings, dials = {**WORK, "CONSUMER_BROKER": broker}, (broker, "redis")
        consumers = {f"{broker}-{when}": {**settings, "CONSUMER_GUARANTEE": guarantee}}
        nodes += [*groups.producers((f"{broker}-p",), settings, dials),
                  *groups.consumers(consumers, dials=dials)]
    members = (MemberSpec("kafka", "kafka"), MemberSpec("rabbitmq", "rabbitmq", optional=True),
               MemberSpec("redis", "redis"))
    return ClusterSpec("queues", tuple(nodes), ("c1",), False, members)


async def scenario(stage: Stage) -> None:
    brokers = [broker for broker in NAMES if broker in stage.cluster.members]
    workers = {broker: dict[str, list[str]]() for broker in brokers}
    for each in stage.together:
        for group, nodes in groups.groups_of(each).items():
            workers[group.partition("-")[0]][group] = nodes
    kafka = [node for nodes in workers["kafka"].values() for node in nodes]
    senders = tuple(f"{broker}-p" for broker in brokers)
    load = MessageWorkload("c1", senders, seed=stage.seed, rate_per_s=60, kinds=("order", "audit"))
    await stage.cluster.ready(120)
    await throughput(stage, brokers)
    if "rabbitmq" in brokers:
        await rabbitmq_queue.bind(stage.cluster, "audit", "messages", "audit.#")
    async with stage.running(load):
        await groups.owned(stage, kafka)
        since = stage.now_ns()
        await stage.require(lambda: all(len(load.of(each, since)) >= 60 for each in senders),
                            within_s=60, what="60 messages through each broker")
        for each in stage.together:
            for group, nodes in groups.groups_of(each).items():
                times = groups.latencies_ms(each, nodes, since)
                shown = f"{percentile(times, 50):.0f} / {percentile(times, 99):.0f} ms"
                each.figures(**{f"{group.partition('-')[0]}_ms": shown})
        victims = [await groups.busiest(stage, nodes)
                   for found in workers.values() for nodes in found.values()]
        await groups.at_work(stage, victims)
        async with stage.fault(stage.nemesis.kill(victims), f"killed: {' '.join(victims)}"):
            left = {broker: {group: [each for each in nodes if each not in victims]
                             for group, nodes in found.items()}
                    for broker, found in workers.items()}
            await groups.owned(stage, [each for nodes in left["kafka"].values() for each in nodes])
            await backlog(stage, load, left, senders)
        await groups.owned(stage, kafka)
    poison = {broker: await send_poison(stage.cluster, "c1", f"{broker}-p", POISON)
              for broker in brokers}
    last = {group: poison[broker][1] for broker, found in workers.items() if broker == "rabbitmq"
            for group in found}
    await groups.drained(stage, workers["kafka"], last)
    await judge(stage, load, poison)


def answer(results: Results) -> str:
    after, before = (result.figures for result in results.values())
    return f"""
        Kafka is a log: consumers keep a position, and commit it. RabbitMQ is a queue: each message
        is acknowledged and gone. With either, acknowledge after the work and a crash delivers
        again: Kafka lost {after["kafka_lost"]}, RabbitMQ {after["rabbitmq_lost"]}. Acknowledge
        before it, and what was under way is gone: {before["kafka_lost"]} and
        {before["rabbitmq_lost"]}.

        Choose by what comes afterwards. A log can be read again and by anybody; a queue routes
        (an audit queue got {after["routed"]} messages) and spreads work one by one. Latency was
        {after["kafka_ms"]} in Kafka, {after["rabbitmq_ms"]} in RabbitMQ (median, 99th percentile,
        at a moderate rate, the work's 300 ms included); one client got {after["kafka_rate"]}
        and {after["rabbitmq_rate"]} small messages a second in and out.
    """


LAB = Lab(
    name="queues", questions=(20,), scenario=scenario, answer=answer, together=True,
    question="Kafka or RabbitMQ: what do queues guarantee when things crash?",
    variants=(
        Variant("acknowledge after", "holds", "the work is done before the broker hears of it",
                lambda _: cluster("effectively_once", "after")),
        Variant("acknowledge before", "breaks", "the broker forgets it before the work is done",
                lambda _: cluster("at_most_once", "before")),
    ),
    predictions=(
        Prediction("A consumer acknowledges first and is killed at work. Is anything lost?",
                   lambda results: not results["acknowledge before"].figures["kafka_lost"]
                   .startswith("0 "), "what was under way is delivered to nobody again."),
    ),
    follow_ups={
        "How is order kept with many consumers?": "By key: a partition, or a queue with one active "
            "consumer. Consumers that compete for one queue overtake each other.",
    },
    misses="Single brokers: no replicas, quorum queues, mirrored partitions or slow disks.",
    comparison=(
        ("never took effect, Kafka", "{kafka_lost}"), ("… RabbitMQ", "{rabbitmq_lost}"),
        ("latency median / 99 %, Kafka", "{kafka_ms}"), ("… RabbitMQ", "{rabbitmq_ms}"),
        ("a second in / out, Kafka", "{kafka_rate}"), ("… RabbitMQ", "{rabbitmq_rate}"),
    ),
)
