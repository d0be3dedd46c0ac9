"""How do you debug a distributed system?

Claim.    Logical clocks put the events of several nodes in order: no effect before its cause,
          however wrong the wall clocks are. A failure that shows once in many runs is found by
          trying schedules by their seed, had again event for event, and shrunk to what matters.
Method.   Put the leader's clock 50 ms ahead and date every message of the run by each clock. Then
          take a rule away from Raft (elections without the log check, §5.4.1), run the store in a
          simulation, seed by seed, until it breaks a promise, and run that again.
Control.  What one does without: sort the events of all nodes by their timestamps; run the same
          load and faults again and hope.
"""

from dataclasses import replace

from labs.harness.causality import ahead_ms, dated, exchanged, inversions, judge
from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import InvalidRun, Stage
from labs.harness.swarm.hunt import Found, attend, hunt
from labs.harness.swarm.search import Swarm
from labs.harness.swarm.shrink import shrink, transcript
from labs.harness.testbed.description import kv_cluster
from labs.harness.workloads.register import RegisterWorkload

BROKEN = "labs.broken:NoLogCheck"
ACTIVE_S = 1.5  # virtual seconds of load and faults in each run of the search
SEEDS, AGAIN, SKEW_MS = 500, 5, 50
METHODICAL, HOPEFUL = "logical clocks and seeds", "timestamps and reruns"


async def scenario(stage: Stage) -> None:
    await order_events(stage)
    seeds = range(SEEDS * stage.seed, SEEDS * (stage.seed + 1))
    stage.tell(f"{BROKEN} in the simulation, from seed {seeds[0]} on …")
    with Swarm(attend=attend) as swarm:
        found = hunt(swarm, seeds, BROKEN, ACTIVE_S)
        if found is None:
            raise InvalidRun(f"{SEEDS} runs, and none of them failed: nothing to debug")
        stage.tell(f"run {found.runs} breaks: {found.failure.promise}: {found.failure.detail}")
        have_it_again(stage, swarm, found)
        if stage.result.name == METHODICAL:
            shrink_it(stage, swarm, found)


async def order_events(stage: Stage) -> None:
    leader = await stage.primary()
    clients = RegisterWorkload(places=("c1",), seed=stage.seed, rate_per_s=60)
    async with stage.running(clients):
        skew = stage.nemesis.bump([leader], delta_ms=SKEW_MS)
        async with stage.fault(skew, f"{leader}, the leader: its clock {SKEW_MS} ms fast") as since:
            await stage.require(lambda: clients.writes("c1", since_ns=since) >= 20,
                                within_s=20, what="20 writes acknowledged")
            events = await exchanged(stage, since_ns=since, until_ns=stage.now_ns(), within_s=30)
    methodical = stage.result.name == METHODICAL
    dates, clocks = dated(events), ["Lamport", "vector", "hybrid"] if methodical else ["wall"]
    early = {name: len(inversions(events, dates[name])) for name in clocks}
    messages = sum(event.cause is not None for event in events)
    by_name = ", ".join(f"{number} by {name} clocks" for name, number in early.items())
    stage.claim("No message is received before it was sent",
                messages > 0 and not any(early.values()),
                f"of {messages} messages: {by_name}", control_breaks=True)
    judged = judge(events[:300], dates["vector" if methodical else "wall"][:300])
    stage.figures(messages=messages, inverted=sum(early.values()),
                  concurrent=judged.concurrent / max(1, judged.pairs))
    stage.claim("No effect is put before its cause, and no order where there is none",
                judged.pairs > 0 and not judged.wrong,
                f"{judged.wrong} of {judged.pairs} pairs of events are ordered wrongly; "
                f"{judged.concurrent} pairs are concurrent", control_breaks=True)
    if methodical:
        ahead = ahead_ms(events, dates["hybrid"])
        stage.figures(ahead_ms=ahead)
        stage.claim("A hybrid clock's date is still a time of day", 0 < ahead < SKEW_MS + 1,
                    f"at most {ahead:.1f} ms ahead of its node's, with {SKEW_MS} between nodes")


def have_it_again(stage: Stage, swarm: Swarm, found: Found) -> None:
    """By its seed; or the same load and faults at the same times, with what else chance brings."""
    seed = found.plan.seed
    others = range(seed + 1, seed + 1 + AGAIN)
    chances = [seed] * AGAIN if stage.result.name == METHODICAL else others
    runs = list(swarm.run(replace(found.plan, seed=chance) for chance in chances))
    same = sum(each is not None and each.trace == found.failure.trace for each in runs)
    failed = sum(each is not None for each in runs)
    shipped = next(swarm.run([replace(found.plan, protocol="raft")]))
    stage.figures(runs=found.runs, same=same, failed=failed)
    stage.claim("The failing run can be had again, event for event", same == AGAIN,
                f"{same} of {AGAIN} further runs had its trace; {failed} failed at all",
                control_breaks=True)
    stage.claim("With the log check, the same schedule breaks nothing", shipped is None,
                f"the shipped Raft breaks: {shipped.promise if shipped else 'nothing'}")


def shrink_it(stage: Stage, swarm: Swarm, found: Found) -> None:
    before = len(found.plan.faults) + len(found.plan.operations)
    small = shrink(found.plan, run=lambda plans: swarm.run(plans, tell=True), runs_max=150)
    faults, requests = len(small.plan.faults), len(small.plan.operations)
    (stage.directory / "shrunk.txt").write_text(transcript(small.plan, small.failure) + "\n")
    stage.tell(f"shrunk in {small.runs} runs; how it begins (the whole story is in shrunk.txt):")
    for line in small.failure.story[:16]:
        stage.tell(f"  {line}")
    stage.figures(steps=before, faults=faults, requests=requests, shrink_runs=small.runs)
    stage.claim("What has nothing to do with it can be left out", faults + requests < before,
                f"{faults} faults and {requests} requests of {before} break the same promise")


def answer(results: Results) -> str:
    seeded, hopeful = (result.figures for result in results.values())
    return f"""
        Put what happened in the order of cause and effect; then make it happen again, and make it
        small. With one clock {SKEW_MS} ms fast, sorting by timestamp put {hopeful["inverted"]} of
        {hopeful["messages"]} messages before their sending. Lamport, vector and hybrid clocks put
        {seeded["inverted"]} of {seeded["messages"]} there. Vector clocks also say that
        {seeded["concurrent"]:.0%} of the pairs of events were concurrent: neither can have caused
        the other. A hybrid date stayed within {seeded["ahead_ms"]:.0f} ms of the node's own clock.

        The mistake showed in one of {seeded["runs"]} random schedules. Run by its seed it came
        again {seeded["same"]} times of {AGAIN}, event for event; of {seeded["steps"]} faults and
        requests {seeded["faults"]} and {seeded["requests"]} were needed. The same load and faults
        without the seed gave that run {hopeful["same"]} times of {AGAIN}.
    """


LAB = Lab(
    name="debugging", questions=(19,), scenario=scenario, answer=answer,
    question="How do you debug a distributed system?",
    variants=(
        Variant(METHODICAL, "holds", "events are ordered by what was known when; a run is a number",
                lambda nodes: kv_cluster(nodes, protocol="raft")),
        Variant(HOPEFUL, "breaks", "sort the logs of all nodes by time; run it again and hope",
                lambda nodes: kv_cluster(nodes, protocol="raft")),
    ),
    predictions=(
        Prediction("One clock of five is 50 ms fast. Do sorted logs show answers before questions?",
                   lambda results: results[HOPEFUL].figures["inverted"] > 0,
                   "a message takes less than a millisecond, so 50 ms turn its ends around."),
        Prediction("The same load, the same faults at the same times: the same events again?",
                   lambda results: results[HOPEFUL].figures["same"] == AGAIN,
                   "delays and election timeouts are chance, and the failure needs a coincidence."),
    ),
    comparison=(("Messages received before they were sent", "{inverted} of {messages}"),
                ("Runs with the failure's trace, of 5", "{same}"),
                ("Runs that failed at all, of 5", "{failed}")),
    follow_ups={
        "And in production?": "Trace ids that travel with each request, a wide event per step.",
        "Why not vector clocks everywhere?": "They take a number per process in every message; "
        "hybrid ones take eight bytes, and can't tell that events are concurrent.",
        "What does a simulator need?": "Time, chance, disk and network from outside, all of them.",
    },
    misses="The dates are worked out afterwards, from the run's messages; CockroachDB's travel.",
)
