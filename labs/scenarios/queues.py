"""The parts of lab-queues that need more than its page: backlog, what each broker still has."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from labs.harness.lab.stage import InvalidRun
from labs.harness.workloads import broker_throughput, kafka_log, rabbitmq_queue
from labs.harness.workloads import consumer_groups as groups
from labs.harness.workloads.messages import MessageWorkload, read_ledger

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

BACKLOG = 40
NAMES = {"kafka": "Kafka", "rabbitmq": "RabbitMQ"}


async def throughput(stage: Stage, brokers: list[str]) -> None:
    """One after the other, before there is a load: neither is to disturb the other. It is the
    brokers', and the same however consumers acknowledge."""
    for broker in brokers:
        measure = getattr(broker_throughput, broker)
        try:
            found = await measure(stage.cluster)
        except TimeoutError as late:
            raise InvalidRun(f"throughput of {NAMES[broker]}: not measured in time") from late
        for each in stage.together:
            shown = "–" if each.result.expected == "breaks" else (
                f"{found.sent:,.0f} / {found.taken:,.0f}"
            )
            each.figures(**{f"{broker}_rate": shown})


async def backlog(stage: Stage, load: MessageWorkload, workers: dict[str, dict[str, list[str]]],
                  senders: tuple[str, ...]) -> None:
    """These consumers paused until `BACKLOG` messages wait, and the brokers killed with it."""
    resting = [node for found in workers.values() for nodes in found.values() for node in nodes]
    crashing = [broker for broker in workers if broker != "kafka" or groups.has_transactions(stage)]
    async with stage.fault(stage.nemesis.pause(resting), "all others paused") as paused:
        await stage.require(lambda: all(len(load.of(each, paused)) >= BACKLOG for each in senders),
                            within_s=60, what=f"a backlog of {BACKLOG} in each broker")
        if crashing:
            killing = stage.nemesis.kill(crashing)
            async with stage.fault(killing, f"killed, with the backlog: {' '.join(crashing)}"):
                stage.tell("and started again")
            await stage.cluster.ready(120, [*crashing, *senders])
    if "kafka" not in crashing:
        for each in stage.together:
            each.needs("Kafka outlives its own crash with a backlog", "Apache Kafka")


async def judge(stage: Stage, load: MessageWorkload,
                poison: dict[str, tuple[set[str], str]]) -> None:
    """What each variant's groups have done, and what each broker still has.

    `poison`: by broker, the ids of what can't be processed, and of the good one after it.
    """
    buried = {"kafka": {(each["id"], each["group"]) for each in
                        await kafka_log.records(stage.cluster, "messages.dead", 1)}}
    if "rabbitmq" in poison:
        buried["rabbitmq"] = {(each.id, each.died_in.removeprefix("messages.")) for each in
                              await rabbitmq_queue.take(stage.cluster, "messages.dead")}
    kept = await still_there(stage, load) if "rabbitmq" in poison else None
    for each in stage.together:
        each.story.variant(each.result.name, each.result.expected, each.result.about)
        for group, nodes in groups.groups_of(each).items():
            broker = group.partition("-")[0]
            dead = {name for name, of in buried[broker] if of == group}
            await of_group(each, load, broker, group, nodes, dead, *poison[broker])
        compare(each, kept)


async def of_group(stage: Stage, load: MessageWorkload, broker: str, group: str, nodes: list[str],
                   dead: set[str | None], poison: set[str], good: str) -> None:
    name, ledger = NAMES[broker], await read_ledger(stage.cluster, group)
    sent = {each.id: each for each in load.of(f"{broker}-p")}
    lost, unordered = ledger.lost(sent), ledger.out_of_order()
    stage.figures(**{f"{broker}_lost": f"{len(lost)} of {len(sent)}"})
    stage.claim(f"{name} loses no acknowledged message", not lost, f"{len(lost)} of {len(sent)} "
                f"never took effect; {groups.repeated(stage, nodes)} came again",
                control_breaks=True)
    if stage.result.expected == "breaks":
        return  # nobody asks it for more: also poison that it has acknowledged may be lost any time
    kept = len(ledger.applied) - len(unordered)
    stage.claim(f"{name} keeps a key's order", not unordered,
                f"{kept} of {len(ledger.applied)} keys in order")
    went_on = good in ledger.times
    stage.claim(f"{name} puts poison aside",
                dead == poison and not poison & ledger.times.keys() and went_on,
                f"{len(dead)} dead letters of {len(poison)}; what came after them "
                f"{'went on' if went_on else 'did not take effect'}")


class Kept(NamedTuple):
    """Of what was `sent`: what Kafka `reads` once more, what is `late` in a queue of RabbitMQ's
    that was bound afterwards, and what was `routed` to the audit queue of what was `wanted`."""

    sent: set[str]
    read: set[str | None]
    late: int
    through: int
    wanted: set[str]
    routed: list[rabbitmq_queue.Taken]


async def still_there(stage: Stage, load: MessageWorkload) -> Kept:
    await rabbitmq_queue.bind(stage.cluster, "late", "messages", "#")
    rabbit = load.of("rabbitmq-p")
    return Kept(
        {each.id for each in load.of("kafka-p")},
        {each["id"] for each in await kafka_log.records(stage.cluster, "messages")},
        await rabbitmq_queue.count(stage.cluster, "late"),
        len(rabbit),
        {each.id for each in rabbit if each.key.startswith("audit.")},
        await rabbitmq_queue.take(stage.cluster, "audit"),
    )


def compare(stage: Stage, kept: Kept | None) -> None:
    """What a log can and a queue can't, and the other way round."""
    if kept is None:
        stage.figures(rabbitmq_ms="–", rabbitmq_rate="–", rabbitmq_lost="–", routed="–")
        for text in ("RabbitMQ loses no acknowledged message", "RabbitMQ keeps a key's order",
                     "RabbitMQ puts poison aside", "Kafka can be read again, a queue can't",
                     "RabbitMQ routes by key"):
            stage.needs(text, "RabbitMQ")
        return
    sent, read = kept.sent, kept.read
    stage.claim("Kafka can be read again, a queue can't", sent <= read and not kept.late,
                f"{len(sent & read)} of {len(sent)} read once more; {kept.late} in a queue bound "
                "later")
    missing = kept.wanted - {each.id for each in kept.routed}
    strangers = [each for each in kept.routed if not each.key.startswith("audit.")]
    stage.figures(routed=f"{len(kept.routed)} of {kept.through}")
    stage.claim("RabbitMQ routes by key", not strangers and not missing, f"an audit queue got "
                f"{len(kept.routed)} messages, {len(strangers)} of them others', {len(missing)} "
                "missing")
