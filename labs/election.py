"""How is a leader elected, and what keeps a former leader from acting?

Claim.    Consensus elects one leader per term, and a former one gets nothing through: a majority
          knows the newer term. A lease elects one worker at a time only while processes and clocks
          keep time; where they do not, a fence refuses what a former holder still does.
Method.   A Raft store keeps a lease for three workers; the holder writes to a resource. Pause the
          store's leader, wake it. Pause the worker that holds the lease past its term, wake it.
          Then let the clock of the new holder run at a twentieth of its rate.
Control.  A resource without a fence, under the same faults: two leaders act.
"""

from collections.abc import Callable
from functools import partial

from labs.harness.checkers import check_lock
from labs.harness.history import load
from labs.harness.lab.claims import one_leader_per_term
from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.nemesis.nemesis import Planned
from labs.harness.testbed.description import lease_cluster
from labs.harness.workloads.acts import Acts, Succession
from labs.harness.workloads.proposals import Proposals

# An election begins after 30 to 60 ticks of silence, 0.3 to 0.6 s; a lease lasts 1 s. Many hands
# that are long at work, so that a pause always finds some of them in the middle of it.
STORE = {"KV_TICK_MS": "10", "KV_ELECTION_TICKS": "30", "KV_HEARTBEAT_TICKS": "3"}
WORKER = {"WORKER_TERM_MS": "1000", "WORKER_HANDS": "12", "WORKER_WORK_MS": "300"}
WORKERS = ("w1", "w2", "w3")
OFFICE = partial(lease_cluster, workers=WORKERS, store=STORE, worker=WORKER)


async def scenario(stage: Stage) -> None:
    store = [node.name for node in stage.cluster.spec.nodes if node.service == "kv"]
    acts = Acts(stage.cluster, stage.recorder, WORKERS)
    await pause_the_leader(stage, store)
    paused = await depose(stage, acts, stage.nemesis.pause, "pause {}, which holds the lease")
    lease_s = stage.result.figures["succeeded_s"]
    slowed = await depose(stage, acts, lambda worker: stage.nemesis.drift(worker, rate=0.05),
                          "the clock of {}, which holds the lease, runs at a twentieth")
    one_leader_per_term(stage, store)
    stage.recorder.merge(acts.operations("resource"))
    woken, slow = acts.late(paused), acts.late(slowed)
    taken = sum(act.accepted for act in woken + slow)
    lost = stage.protocol_events(slowed.old.worker, "lose", since_ns=slowed.new.ended_ns)[0]
    both_ms = (lost["at_ns"] - slowed.new.ended_ns) / 1e6
    result = check_lock(load(stage.history_path))
    stage.figures(lease_s=lease_s, woken=len(woken), slow=len(slow), late=len(woken + slow),
                  taken=taken, both_ms=both_ms, leases=result.stats["acquired"])
    stage.claim("No act of a former holder is accepted after one of its successor", result,
                f"{len(woken)} late acts of the worker that was paused, {len(slow)} of the one "
                f"with the slow clock: {taken} accepted", control_breaks=True)


async def pause_the_leader(stage: Stage, store: list[str]) -> None:
    async def leads() -> str | None:
        proposals.send(node := await stage.primary(within_s=40), 20, deadline_ms=5_000)
        return node if (await proposals.ended())["ok"] == 20 else None

    async with Proposals(stage.cluster, stage.recorder, "c1", store) as proposals:
        old = await stage.require(leads, within_s=45, what="a leader acknowledges 20 writes")
        async with stage.fault(stage.nemesis.pause(old), f"pause {old}, the store's leader") as cut:
            proposals.send(old, 20, deadline_ms=20_000)  # they wait in its sockets: it may wake up
            new = (await stage.require(
                lambda: [event for node in store if node != old
                         for event in stage.protocol_events(node, "become_leader", since_ns=cut)],
                within_s=30, what="another node leads the store"))[0]
        after = await proposals.ended()
    consensus_s = (new["at_ns"] - cut) / 1e9
    stage.figures(consensus_s=consensus_s, waited=after.total(), acknowledged=after["ok"])
    stage.claim("Woken, the store's former leader gets nothing through", not after["ok"],
                f"{new['node']} led term {new['term']} {consensus_s:.2f} s after {old} was paused; "
                f"{old} had acknowledged 20 of 20 writes; those that waited for it ended "
                + ", ".join(f"{how} ({count})" for how, count in after.items()))


async def depose(stage: Stage, acts: Acts, fault: Callable[[str], Planned],
                 text: str) -> Succession:
    old = await stage.require(lambda: acts.acting(12), within_s=40,
                              what="12 acts of the worker that holds the lease")
    async with stage.fault(fault(old.worker), text.format(old.worker)) as cut:
        done = await stage.require(lambda: acts.succession(old, cut, 12), within_s=40,
                                   what="12 acts of another worker, which holds the lease now")
        stage.figures(succeeded_s=(done.new.ended_ns - cut) / 1e9)
        stage.tell(f"{done.new.worker} holds the lease, token {done.new.token}; "
                   f"that of {old.worker} is {old.token}")
    await stage.require(lambda: acts.late(done), within_s=30, what=f"an act of {old.worker}, late")
    await stage.require(lambda: stage.protocol_events(old.worker, "lose", since_ns=cut),
                        within_s=30, what=f"{old.worker} knows that its lease is over")
    return done


def answer(results: Results) -> str:
    fenced, unfenced = (result.figures for result in results.values())
    return f"""
        By consensus: whoever gets a majority's votes leads a term. With the leader paused the
        others had a new one after {fenced["consensus_s"]:.2f} s. Of {fenced["waited"]} writes that
        waited at the old one it acknowledged {fenced["acknowledged"]} when it woke up: each needs a
        majority, and a majority knew the newer term.

        By lease: compare-and-set your name into such a store, renew it, and lead while it lasts.
        That took {fenced["lease_s"]:.2f} s, because others may only take over when it has run out.
        And nobody can look at the clock and act in the same instant. The paused holder woke up in
        the middle of its acts; the one with the slow clock led on beside its successor, for
        {fenced["both_ms"]:.0f} ms until the fence told it, and without one for
        {unfenced["both_ms"]:.0f} ms until its clock was set right. That two believe they lead can't
        be excluded, only that both act.

        So the lease has a number that grows, and the resource refuses any number older than the
        newest it has seen: of {fenced["late"]} late acts it took {fenced["taken"]}. The control
        took {unfenced["taken"]} of {unfenced["late"]}: two leaders, one overwriting the other.
    """


LAB = Lab(
    name="election", questions=(15,), scenario=scenario, answer=answer,
    question="How is a leader elected, and what keeps a former leader from acting?",
    variants=(
        Variant("fenced", "holds", "the resource refuses a token older than the newest it has seen",
                lambda nodes: OFFICE(nodes, fencing=True)),
        Variant("unfenced", "breaks", "the resource takes whatever comes",
                lambda nodes: OFFICE(nodes, fencing=False)),
    ),
    predictions=(
        Prediction("A worker is paused past its lease, between its last look at the clock and its "
                   "write. Will the fence let the write through?",
                   lambda results: results["fenced"].figures["taken"] > 0,
                   "its successor has written with a greater token already."),
        Prediction("Will two workers hold the lease at once, each by its own clock?",
                   lambda results: results["fenced"].figures["both_ms"] > 0,
                   "one clock runs slow, and a lease is no more than two clocks that agree."),
    ),
    follow_ups={
        "Why not look at the clock again before writing?": "That makes the gap short and never "
            "zero: the write still has to travel, and the network may hold it for a minute.",
        "What if the resource knows no tokens?": "Make its write conditional (If-Match: the "
            "version read), or let it happen once (an idempotency key per task). Chubby's lock-"
            "delay or a longer lease only make it rare.",
        "Does consensus need fencing, too?": "Outside its log, yes: a Raft leader that prints or "
            "calls a payment service can be deposed meanwhile. Its term is the token.",
    },
    misses="There is one resource; of several, each has to see the new token before it refuses the "
           "old one. And the workers share a machine, whose clock tells what came late.",
    comparison=(
        ("store: seconds to a new leader", "{consensus_s:.2f}"),
        ("lease: seconds to a new holder", "{lease_s:.2f}"),
        ("two hold the lease by their clocks, ms", "{both_ms:.0f}"),
        ("late acts accepted", "{taken} of {late}"),
    ),
)
