"""The parts of lab-queues that need more than its page: backlog, what each broker still has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labs.harness.lab.stage import InvalidRun
from labs.harness.workloads import broker_throughput, kafka_log, rabbitmq_queue
from labs.harness.workloads import consumer_groups as groups
from labs.harness.workloads.messages import MessageWorkload, read_ledger

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

BACKLOG = 200
NAMES = {"kafka": "Kafka", "rabbitmq": "RabbitMQ"}


async def throughput(stage: Stage, brokers: list[str]) -> None:
    """One after the other, before there is a load: neither is to disturb the other. Once a run:
    it is the brokers', and the same however consumers acknowledge."""
    for broker in brokers:
        if stage.result.expected == "breaks":
            stage.figures(**{f"{broker}_rate": "–"})
            continue
        measure = getattr(broker_throughput, broker)
        try:
            found = await measure(stage.cluster)
        except TimeoutError as late:
            raise InvalidRun(f"throughput of {NAMES[broker]}: not measured in time") from late
        stage.figures(**{f"{broker}_rate": f"{found.sent:,.0f} / {found.taken:,.0f}"})


async def backlog(stage: Stage, load: MessageWorkload, workers: dict[str, list[str]],
                  senders: tuple[str, ...]) -> None:
    resting = [node for nodes in workers.values() for node in nodes]
    crashing = [broker for broker in workers if broker != "kafka" or groups.has_transactions(stage)]
    async with stage.fault(stage.nemesis.pause(resting), "all consumers paused") as paused:
        await stage.require(lambda: all(len(load.of(each, paused)) >= BACKLOG for each in senders),
                            within_s=60, what=f"a backlog of {BACKLOG} in each broker")
        if crashing:
            killing = stage.nemesis.kill(crashing)
            async with stage.fault(killing, f"killed, with the backlog: {' '.join(crashing)}"):
                stage.tell("and started again")
            await stage.cluster.ready(120, [*crashing, *senders])
    await groups.owned(stage, workers["kafka"])
    if "kafka" not in crashing:
        stage.needs("Kafka outlives its own crash with a backlog", "Apache Kafka")


async def judge(stage: Stage, broker: str, load: MessageWorkload, poison: set[str]) -> None:
    name, ledger = NAMES[broker], await read_ledger(stage.cluster, broker)
    sent = {each.id: each for each in load.of(f"{broker}-p")}
    lost, unordered = ledger.lost(sent), ledger.out_of_order()
    again = groups.repeated(stage, (f"{broker}-1", f"{broker}-2"))
    stage.figures(**{f"{broker}_lost": f"{len(lost)} of {len(sent)}"})
    stage.claim(f"{name} loses no acknowledged message", not lost, f"{len(lost)} of {len(sent)} "
                f"never took effect; {again} came again", control_breaks=True)
    if stage.result.expected == "holds":  # of the control nobody asks it
        kept = len(ledger.applied) - len(unordered)
        stage.claim(f"{name} keeps a key's order", not unordered,
                    f"{kept} of {len(ledger.applied)} keys in order")
    if broker == "kafka":
        dead = {each["id"] for each in await kafka_log.records(stage.cluster, "messages.dead", 1)}
    else:
        dead = {each for each, _ in await rabbitmq_queue.take(stage.cluster, "messages.dead")}
    stage.claim(f"{name} puts poison aside", dead == poison and not poison & ledger.times.keys(),
                f"{len(dead)} dead letters of {len(poison)}; what came after them went on")


async def compare(stage: Stage, load: MessageWorkload) -> None:
    kept = {each["id"] for each in await kafka_log.records(stage.cluster, "messages")}
    await rabbitmq_queue.bind(stage.cluster, "late", "messages", "#")
    late = await rabbitmq_queue.count(stage.cluster, "late")
    sent = {each.id for each in load.of("kafka-p")}
    stage.claim("Kafka can be read again, a queue can't", sent <= kept and not late,
                f"{len(sent & kept)} of {len(sent)} read once more; {late} in a queue bound later")
    routed = await rabbitmq_queue.take(stage.cluster, "audit")
    wanted = {each.id for each in load.of("rabbitmq-p") if each.key.startswith("audit.")}
    missing = wanted - {name for name, _ in routed}
    strangers = [key for _, key in routed if not key.startswith("audit.")]
    stage.figures(routed=f"{len(routed)} of {len(load.of('rabbitmq-p'))}")
    stage.claim("RabbitMQ routes by key", not strangers and not missing, f"an audit queue got "
                f"{len(routed)} messages, {len(strangers)} of them others', {len(missing)} missing")
