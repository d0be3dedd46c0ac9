"""How does a replicated store handle a network partition?

Claim.    With Raft, replicas that are split with the old leader in the minority stay correct: the
          minority acknowledges nothing, the majority elects a leader and goes on, and nothing
          acknowledged is lost. A circuit breaker keeps callers of the cut-off side quick.
Method.   Clients read and write from both sides throughout. Cut the leader off together with the
          smaller half and the clients at c1; heal. Then stop one follower's ear (one-way); heal.
Control.  Asynchronous replication whose backups promote themselves when they hear no primary: the
          same load and faults make two primaries, and acknowledged writes are lost.
"""

from labs.harness.lab.claims import no_acknowledged_write_is_lost, the_history_is_linearizable
from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import InvalidRun, Stage
from labs.harness.nemesis.shapes import minority_with
from labs.harness.testbed.description import kv_cluster
from labs.harness.workloads.callers import Caller
from labs.harness.workloads.register import RegisterWorkload
from services.resilience.circuit_breaker import CircuitBreaker

# An election begins after 20 to 40 ticks of silence, 0.2 to 0.4 s: a hundred times an fdatasync.
TIMERS = {"KV_TICK_MS": "10", "KV_ELECTION_TICKS": "20", "KV_HEARTBEAT_TICKS": "3"}
NAIVE = {**TIMERS, "KV_ACKNOWLEDGEMENT": "asynchronous", "KV_PROMOTION": "naive"}


async def scenario(stage: Stage) -> None:
    leader = await stage.primary()
    clients = RegisterWorkload(places=("c1", "c2"), seed=stage.seed)
    plain = Caller("c2", leader, seed=stage.seed, deadline_ms=150)
    guarded = Caller("c2", leader, seed=stage.seed, deadline_ms=150,
                     breaker=CircuitBreaker(failures_to_open=3, open_for_s=0.3))
    async with stage.running(clients, plain, guarded):
        await stage.require(lambda: min(clients.writes("c1"), clients.writes("c2")) >= 20,
                            within_s=20, what="20 writes acknowledged at c1 and at c2")
        stage.tell(f"{leader} leads; {clients.acknowledged()} operations acknowledged at c1 and c2")
        await split(stage, clients, plain, guarded)
        await stop_an_ear(stage, clients)
    await stage.converged(within_s=30)
    await clients.final_reads(stage.cluster, "c2", within_s=20)
    no_acknowledged_write_is_lost(stage)
    the_history_is_linearizable(stage)


async def split(stage: Stage, clients: RegisterWorkload, plain: Caller, guarded: Caller) -> None:
    leader = plain.node
    minority, majority = minority_with(leader, stage.cluster.nodes)
    places = {"c1": minority[0], "c2": majority[0]}  # each client group stands on one side
    cut_off = stage.nemesis.partition([minority, majority], clients=places)
    sides = f"cut: {' '.join(minority)} c1 | {' '.join(majority)} c2"
    async with stage.fault(cut_off, sides) as cut:
        waiting, refusing = plain.watch(), guarded.watch()
        await stage.eventually(lambda: clients.writes("c2", since_ns=cut) >= 20,
                               within_s=15, what="20 writes acknowledged at c2")
        leads = await stage.leading(majority)
        await stage.require(lambda: len(clients.between("c1", cut)) >= 20
                            and len(waiting.failed) >= 3 and len(refusing.refused) >= 10,
                            within_s=20, what=f"operations at c1 ended, calls to {leader} failed")
        slow, fast = waiting.median_ms(), refusing.median_ms()
        waited, refused = len(refusing.failed), len(refusing.refused)
        small_side, large_side = clients.between("c1", cut), clients.between("c2", cut)
    accepted = [op for op in small_side if op.type == "ok"]
    writes = [op.return_ns - cut for op in large_side if op.type == "ok" and op.f != "read"]
    outage_s = min(writes) / 1e9 if writes else float("nan")
    stage.figures(accepted=len(accepted), attempted=len(small_side), outage_s=outage_s,
                  call_ms=slow, guarded_call_ms=fast)
    stage.claim("The minority side acknowledged nothing while it was cut off", not accepted,
                f"{len(accepted)} of {len(small_side)} operations at c1, which reached only "
                f"{' and '.join(minority)}, were acknowledged", control_breaks=True)
    stage.claim("The majority side got a leader and went on", bool(leads and writes),
                f"{' and '.join(leads)} led; {len(writes)} writes acknowledged at c2, "
                f"the first {outage_s:.2f} s after the cut")
    stage.claim("A circuit breaker keeps callers of the cut-off side failing fast",
                fast < slow / 10 and waited < refused,
                f"a call to {leader} failed after {slow:.0f} ms, behind a breaker after "
                f"{fast:.2f} ms (medians); {waited} of {waited + refused} went out and waited")


async def stop_an_ear(stage: Stage, clients: RegisterWorkload) -> None:
    leader, known = await stage.followed(), stage.now_ns()
    deaf = next(node for node in stage.cluster.nodes if node != leader)
    deafness = stage.nemesis.partition({deaf: frozenset({leader})})
    async with stage.fault(deafness, f"one-way cut: {deaf} no longer hears {leader}") as cut:
        await stage.require(lambda: stage.gave_up(deaf, leader),
                            within_s=30, what=f"{deaf} gives up its leader")
        since = stage.now_ns()
        await stage.eventually(lambda: clients.writes("c2", since_ns=since) >= 20,
                               within_s=15, what="20 more writes acknowledged")
        leads = await stage.cluster.primaries()
    stood = stage.protocol_events(deaf, "become_candidate", "become_primary", since_ns=known)
    if stood and stood[0]["at_ns"] < cut:
        raise InvalidRun(f"{deaf} had given {leader} up before it was cut off")
    stage.claim("A node that cannot hear the leader does not depose it", not stood,
                f"{deaf} gave {leader} up and {'took over' if stood else 'asked in vain'}; "
                f"then {' and '.join(leads) or 'nobody'} led", control_breaks=True)


def answer(results: Results) -> str:
    raft, naive = (result.figures for result in results.values())
    return f"""
        Decide which side may go on, and make the other refuse. Raft decides by majority. The cut
        left the old leader in the minority; of {raft["attempted"]} operations sent there
        {raft["accepted"]} were acknowledged, because a write counts only once a majority has it.
        The other side elected a leader and acknowledged a write {raft["outage_s"]:.2f} s after
        the cut. Healed, {raft["lost"]} of {raft["acknowledged"]} acknowledged writes were lost.

        The price is availability: the minority's clients got errors. The control takes the other
        bargain. Its backups promoted a second primary because they heard no first, the cut-off one
        went on and acknowledged {naive["accepted"]} of {naive["attempted"]}: split brain. On
        healing one side's log had to go, and {naive["lost"]} acknowledged writes went with it.

        Callers need protection too: a call to the cut-off leader took {raft["call_ms"]:.0f} ms to
        fail, behind a circuit breaker {raft["guarded_call_ms"]:.2f} ms. And a timeout proves
        nothing, the write may have happened: retry only with an idempotency key.
    """


LAB = Lab(
    name="partition", questions=(23,), scenario=scenario, answer=answer,
    question="How do you handle a network partition?",
    variants=(
        Variant("raft", "holds", "a write is acknowledged once a majority has it on disk",
                lambda nodes: kv_cluster(nodes, protocol="raft", environment=TIMERS)),
        Variant("naive failover", "breaks", "backups promote themselves when the primary is silent",
                lambda nodes: kv_cluster(nodes, protocol="primary_backup", environment=NAIVE)),
    ),
    predictions=(
        Prediction("The old leader is cut off with one follower. Will it acknowledge a write?",
                   lambda results: results["raft"].figures["accepted"] > 0,
                   "it needs a majority, and its side is none."),
        Prediction("Backups promote themselves by silence. Will acknowledged writes survive?",
                   lambda results: results["naive failover"].figures["lost"] == 0,
                   "two primaries wrote two logs, and only one is kept."),
    ),
    follow_ups={
        "And an even split, or three parts?": "Without a majority on any side nothing is "
            "acknowledged until two parts meet again: safe, and down.",
        "Reads on the cut-off side?": "Only stale ones (?consistency=local), and said to be so: a "
            "linearizable read needs a majority too, or a lease that clocks can be trusted with.",
        "What does the client do with a timeout?": "It cannot know. Retry with the same "
            "idempotency key, to any node; the session table makes the second apply do nothing.",
    },
    misses="Membership is fixed, all nodes share a disk and a clock, and the cut is clean: real "
           "ones flap, lose some packets, and cut monitoring off together with the service.",
    comparison=(
        ("acknowledged by the cut-off side", "{accepted} of {attempted}"),
        ("acknowledged writes lost", "{lost} of {acknowledged}"),
    ),
)
