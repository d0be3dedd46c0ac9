"""How do Paxos, Raft, Zab and Viewstamped Replication agree, and what does it cost?

Claim.    All four keep one store linearizable through the same faults. They differ in messages for
          a write and in who may lead: Raft and Zab refuse whoever has missed something, Paxos and
          Viewstamped Replication let it lead once it has learned that.
Method.   Operations one at a time count messages, slow links count round trips. Then, under load:
          cut the leader off with a follower, which so misses writes; kill the next leader, restart
          the rest of its side, and heal so that a majority hears nobody but that follower.
Control.  Each protocol with one rule removed (labs/broken), under the same load and faults; and
          Paxos with two proposers, neither of them distinguished, who duel.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack

from labs.harness.lab import claims
from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.measures import Tail, applied, level, what_it_costs
from labs.harness.lab.stage import Stage
from labs.harness.nemesis.shapes import ShapeError, hub
from labs.harness.testbed.description import ClusterSpec, kv_cluster
from labs.harness.workloads.one_at_a_time import OneAtATime
from labs.harness.workloads.register import RegisterWorkload

TIMERS = {"KV_TICK_MS": "10", "KV_ELECTION_TICKS": "20", "KV_HEARTBEAT_TICKS": "3"}
DUEL, HOME = "paxos, duelling", "labs.broken:"
FOUR = {
    "raft": "terms; a vote only for a log that lacks nothing of one's own",
    "paxos": "ballots; a leader first learns what a majority has accepted",
    "zab": "epochs; whoever has the most recent history is elected",
    "viewstamped": "views; the new primary takes the best log of a majority",
}
RULE = {  # removed: what is left is in labs/broken
    "raft, no log check": ("NoLogCheck", "a vote for any candidate"),
    "paxos, promises ignored": ("PromisesIgnored", "a leader proposes its own values"),
    "zab, no zxid check": ("NoZxidCheck", "all histories count as equally recent"),
    "viewstamped, log forgotten": ("LogForgotten", "a new primary keeps its own log"),
}


async def scenario(stage: Stage) -> None:
    alone, told = OneAtATime("c1", seed=stage.seed), Tail(stage)
    async with stage.running(alone):
        if not await values_get_chosen(stage, alone, told):
            return  # there is no leader to cut off
        await what_it_costs(stage, alone, one_way_ms=10)
    clients = RegisterWorkload(places=("c1", "c2"), seed=stage.seed, rate_per_s=150)
    async with stage.running(clients):
        await faults(stage, clients, told)
    await stage.converged(within_s=30)
    await clients.final_reads(stage.cluster, "c2", within_s=20)
    claims.no_acknowledged_write_is_lost(stage)
    claims.the_history_is_linearizable(stage)


async def values_get_chosen(stage: Stage, alone: OneAtATime, told: Tail) -> bool:
    def counts() -> tuple[int, int]:
        return len(alone.acknowledged("write")), len(told.named("become_candidate"))
    # A busy machine may hold one of two proposers up: time for the other to choose a few dozen.
    await stage.require(lambda: max(counts()) >= 100, within_s=60, what="100 values or ballots")
    chosen, ballots = counts()
    stage.figures(chosen=chosen, ballots=ballots)
    stage.claim("More values get chosen than ballots are spent", chosen > ballots,
                f"{chosen} values chosen; nodes stood for leader {ballots} times",
                control_breaks=stage.result.name == DUEL)
    return chosen > ballots


async def faults(stage: Stage, clients: RegisterWorkload, told: Tail) -> None:
    leader, half = await stage.primary(), len(stage.cluster.nodes) // 2
    if len(stage.cluster.nodes) not in (5, 7, 9):
        raise ShapeError("this timetable needs 5, 7 or 9 nodes")
    *rest, late = [node for node in stage.cluster.nodes if node != leader]
    async with AsyncExitStack() as later:
        aside = stage.nemesis.partition([[leader, late], rest], clients={"c1": leader, "c2": rest})
        sides = f"cut: {leader} {late} c1 | {' '.join(rest)} c2"
        async with stage.fault(aside, sides) as cut:
            second = await claims.only_the_majority_goes_on(stage, clients, cut, rest, late)
            others = [node for node in rest if node != second]
            voters, deaf = others[:half], [leader, *others[half:]]
            only_late = stage.nemesis.partition(hub(late, voters, deaf, second))
            words = f"cut, too: {' and '.join(voters)} from each other, {' '.join(deaf)} from them"
            await later.enter_async_context(stage.fault(only_late, words))
            goal, killed = max(await applied(stage)), stage.now_ns()
            death = stage.nemesis.kill(second)
            await later.enter_async_context(stage.fault(death, f"kill {second}, which leads"))
            async with stage.fault(stage.nemesis.kill(others), f"restart {' and '.join(others)}"):
                pass  # and they come back without knowing what was committed
        await claims.only_who_has_it_all_leads(stage, clients, told, late, voters, goal, killed)
        goal, healed = max(await applied(stage)), stage.now_ns()
    await stage.eventually(lambda: level(stage, goal), within_s=20, what=f"all applied {goal}")
    stage.figures(repair_s=(stage.now_ns() - healed) / 1e9)


def answer(results: Results) -> str:
    raft, paxos, zab, viewstamped = (results[name].figures for name in FOUR)
    duel, lost = results[DUEL].figures, [results[name].figures.get("lost", "some") for name in RULE]
    return f"""
        Whatever a majority has stored survives: the next leader asks a majority, and two majorities
        share a node. A leader orders the writes, each in {raft["write_trips"]:.1f} round trips:
        {raft["write_messages"]} messages in Raft, {paxos["write_messages"]} in Paxos,
        {viewstamped["write_messages"]} in Viewstamped Replication, {zab["write_messages"]} in Zab.

        They differ in how a leader comes to have everything. Raft and Zab elect only who has it:
        the follower that had missed writes was {raft["late"]} by both. Paxos and Viewstamped
        Replication let anyone lead who first learns it from a majority: it {paxos["late"]} and
        {viewstamped["late"]}. Without that one rule {", ".join(map(str, lost))} acknowledged
        writes were lost (Raft, Paxos, Zab, Viewstamped Replication).

        Safety never rests on there being one leader, but progress does: two duelling proposers
        spent {duel["ballots"]} ballots and got {duel["chosen"]} values chosen; a distinguished one
        spent {paxos["ballots"]} on {paxos["chosen"]}.
    """


def runs(protocol: str) -> Callable[[int], ClusterSpec]:
    return lambda nodes: kv_cluster(nodes, protocol=protocol, environment=TIMERS)


LAB = Lab(
    name="consensus", questions=(6, 25), scenario=scenario, answer=answer, compared=tuple(FOUR),
    question="How do Paxos, Raft, Zab and Viewstamped Replication agree, and what does it cost?",
    variants=(
        *(Variant(name, "holds", about, runs(name)) for name, about in FOUR.items()),
        *(Variant(name, "breaks", about, runs(HOME + core), may_stop=True)
          for name, (core, about) in RULE.items()),
        Variant(DUEL, "breaks", "two proposers with ever higher ballots", runs(f"{HOME}Duelling")),
    ),
    predictions=(
        Prediction("Raft, and a majority hears only a follower that missed writes. Will it lead?",
                   lambda results: results["raft"].figures["late"] != "refused",
                   "voters compare logs, and refuse one that lacks what they have."),
        Prediction("The same in Paxos. Will it lead?",
                   lambda results: results["paxos"].figures["late"] != "refused",
                   "the promises of a majority tell it what it missed."),
    ),
    follow_ups={
        "What keeps proposers from duelling?": "Random timeouts, and giving way: one gets through.",
        "Which would you choose?": "One that is well tested: under faults they differ little.",
    },
    misses="Membership is fixed, disks keep what they were given, and nobody lies (Byzantine).",
    comparison=(
        ("messages for a write, a read", "{write_messages}, {read_messages}"),
        ("round trips for a write, a read", "{write_trips:.1f}, {read_trips:.1f}"),
        ("leader cut off: until the next write", "{outage_s:.2f} s"),
        ("a majority hears only who missed writes", "{late}"),
        ("healed: until all have everything", "{repair_s:.2f} s"),
        ("acknowledged writes lost", "{lost} of {acknowledged}"),
    ),
)
