"""How does one replicate data, and what does each way cost?

Claim.    A write waits for the replicas that its acknowledgement speaks of, and only what they have
          is sure to survive a failover. With one leader: none (asynchronous), one
          (semi-synchronous, if the right one takes over), all (synchronous: with one of them gone,
          nothing is acknowledged). With many leaders none, and conflicts come of it; without a
          leader, any one more. A replica that may be read from adds its capacity, and lags.
Method.   Three replicas at a distance: latency, lag, conflicts; reads from one and from all. Then
          cut one replica off, then the leader from both, and kill it. All return, and are compared.
Controls. Asynchronous failover. Semi-synchronous: the lower id takes over, not the longer log.
"""

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.testbed.description import kv_cluster
from labs.harness.workloads.statistics import percentile
from labs.scenarios import replication as parts
from labs.scenarios.replication import Adds, Desk, System, sent

COMMON = {"KV_TICK_MS": "10", "KV_ELECTION_TICKS": "60", "KV_HEARTBEAT_TICKS": "3",
          "KV_READ_SLOTS": "1", "KV_READ_MS": "10", "KV_ANTI_ENTROPY_TICKS": "10"}
REPLICAS, NEAR_MS, FAR_MS = 3, 15.0, 50.0  # how far from the leader the others are, one way
ASYNC = {"KV_PROMOTION": "longest_log"}
SEMI, SYNC = ({**ASYNC, "KV_ACKNOWLEDGEMENT": f"{how}synchronous"} for how in ("semi_", ""))
NAIVE = {**SEMI, "KV_PROMOTION": "naive"}
ONE_LEADER = {"asynchronous": 0, "naive": 1, "semi-synchronous": 1, "synchronous": 2}
SYSTEMS = {name: System(waits, True, "local", "linearizable") for name, waits in ONE_LEADER.items()}
SYSTEMS |= {"multi-leader": System(0, False, "eventual", "eventual"),
            "leaderless": System(1, False, "eventual", "quorum")}


async def scenario(stage: Stage) -> None:
    system = SYSTEMS[stage.cluster.spec.name]
    leader, _, near = await parts.roles(stage, system)
    await parts.alike(stage, within_s=15)
    here = Adds("c1", leader, seed=stage.seed, rate_per_s=40)
    there, desk = Adds("c2", near, seed=stage.seed, rate_per_s=20), Desk(stage, "c2")
    try:
        async with stage.running(here, there):
            await at_a_distance(stage, system, desk, here)
            await parts.read_scaling(stage, desk, system)
            await fail_over(stage, system, desk, here, there)
        await parts.alike(stage, within_s=20)
        await parts.what_is_lost(stage, desk, system, [*here.keys, *there.keys])
    finally:
        await desk.close()


async def at_a_distance(stage: Stage, system: System, desk: Desk, here: Adds) -> None:
    leader, far, near = await parts.roles(stage, system)
    links = [link for link in stage.cluster.links if link.src in stage.cluster.nodes]
    to_far = stage.nemesis.delay([link for link in links if far in link], time_ms=FAR_MS)
    to_near = stage.nemesis.delay([link for link in links if far not in link], time_ms=NEAR_MS)
    async with (stage.fault(to_far, f"{far} is {FAR_MS:g} ms away"),
                stage.fault(to_near, f"{near} is {NEAR_MS:g} ms away from {leader}") as since):
        lag_ms = await parts.replication_lag(stage, desk, system, leader, far)
        await stage.require(lambda: len(here.acknowledged(since)) >= 12,
                            within_s=20, what="12 writes acknowledged at c1")
        writes = here.acknowledged(since)
        await parts.conflicts(stage, desk, system, leader, far)
    trips = (0.0, 2 * NEAR_MS, 2 * FAR_MS, float("inf"))
    soon, least, most = percentile(writes, 10), *trips[system.waits_for : system.waits_for + 2]
    stage.figures(write_ms=percentile(writes, 50), lag_ms=lag_ms)
    stage.claim(f"A write waits for {('none', 'one', 'both')[system.waits_for]} of the others",
                0.95 * least <= soon < most, f"a tenth of {len(writes)} writes took at most "
                f"{soon:.1f} ms; the others are {trips[1]:g} and {trips[2]:g} ms away and back")


async def fail_over(stage: Stage, system: System, desk: Desk, here: Adds, there: Adds) -> None:
    leader, far, near = await parts.roles(stage, system)
    one, both = (stage.nemesis.partition({node: {leader}, leader: {node}}) for node in (far, near))
    least, before = 0 if system.waits_for == REPLICAS - 1 else 3, len(here.kept)
    async with stage.fault(one, f"{leader} and {far} no longer hear each other") as cut:
        await sent(stage, here, 6)
        async with stage.fault(both, f"nor {leader} and {near}") as alone:
            await sent(stage, here, 6)
            kept = here.kept[before:]
            async with stage.fault(stage.nemesis.kill([leader]), f"killed: {leader}") as dead:
                await sent(stage, here, 6)
                await stage.require(lambda: min(len(each.acknowledged(dead))
                                                for each in (here, there)) >= least,
                                    within_s=20, what=f"{least} writes acknowledged at c1 and c2")
                alone_had = await parts.missing(desk, system, kept, [near, far])
                ended = [each.return_ns for each in here.since(dead) if each.type == "ok"]
    during = here.since(cut, alone)
    went_on = sum(each.type == "ok" for each in during)
    outage = f"{(min(ended) - dead) / 1e9:.2f} s" if ended else "–"
    stage.figures(outage=outage, missing=alone_had, went_on=went_on, cut_asked=len(during))
    stage.claim(f"With a replica gone, {'writes go on' if least else 'nothing is acknowledged'}",
                bool(went_on and ended) if least else not (went_on or ended),
                f"{far} cut off: {went_on} of {len(during)} acknowledged; {leader} dead: " +
                (f"the next one after {outage}" if ended else "none until it was back"))
    stage.tell(f"{alone_had} of {len(kept)} writes acknowledged in the cuts were on {leader} alone")


def answer(results: Results) -> str:
    none, naive, semi, every, many, no = (result.figures for result in results.values())
    return f"""
        Say first what an acknowledged write has survived. With one leader: asynchronous, a write
        took {none["write_ms"]:.1f} ms and the leader's death cost {none["lost"]} acknowledged
        ones; semi-synchronous {semi["write_ms"]:.0f} ms, a trip to the nearer replica, and
        {semi["lost"]}, because the longest log took over: promoted by its id, the wrong one lost
        {naive["lost"]}. Synchronous {every["write_ms"]:.0f} ms, the farthest replica, lost
        {every["lost"]}, and with one replica cut off it acknowledged {every["went_on"]} of
        {every["cut_asked"]}.

        With many leaders a write waits for nobody ({many["write_ms"]:.1f} ms). What the dead one
        alone had, {many["missing"]} writes, was out of reach until it came back, and would be gone
        with its disk; {many["conflicts"]} keys written at two leaders at once were conflicts, and
        one write of each was dropped. Without a leader any majority will do: {no["write_ms"]:.0f}
        ms, {no["lost"]} lost, no failover; {no["conflicts"]} conflicts stay, as siblings.

        Reads scale with the replicas read from ({none["reads_one"]:.0f} a second from one,
        {none["reads_all"]:.0f} from three), if they may be stale: the far one showed a write
        {none["lag_ms"]:.0f} ms after its acknowledgement, and {every["lag_ms"]:.0f} ms even
        synchronously: it has the entry, and learns later that it counts.
    """


def variant(name: str, holds: bool, about: str, own: dict[str, str],
            protocol: str = "primary_backup") -> Variant:
    spec = kv_cluster(REPLICAS, protocol=protocol, environment={**COMMON, **own}, name=name)
    return Variant(name, "holds" if holds else "breaks", about, lambda _: spec)


LAB = Lab(
    name="replication", questions=(10,), scenario=scenario, answer=answer,
    question="How do you replicate data?",
    variants=(
        variant("asynchronous", False, "the leader's disk alone; the longest log follows", ASYNC),
        variant("naive", False, "semi-synchronous; the lowest id follows", NAIVE),
        variant("semi-synchronous", True, "one more disk; the longest log follows", SEMI),
        variant("synchronous", True, "all disks", SYNC),
        variant("multi-leader", True, "each leader's own disk", {}, "multi_leader"),
        variant("leaderless", True, "two of three disks, whichever", {}, "quorum"),
    ),
    predictions=(
        Prediction("Semi-synchronous: a backup has each acknowledged write. Is failover safe?",
                   lambda results: results["naive"].figures["lost"] == 0,
                   "only if the backup that has it is the one promoted."),
    ),
    follow_ups={"And consensus?": "A majority acknowledges, and one that must meet it elects: what "
                "semi-synchronous means to be, without split brain (lab partition)."},
    misses="Kills here spare the disk; and promotion goes by silence, which a partition feigns.",
    comparison=(("write, median", "{write_ms:.1f} ms"), ("lag of the far one", "{lag_ms:.0f} ms"),
                ("one cut off", "{went_on} of {cut_asked}"), ("leader dead", "{outage}"),
                ("lost", "{lost} of {acknowledged}"), ("out of reach", "{missing}"),
                ("conflicts", "{conflicts}"), ("reads/s, one", "{reads_one:.0f}"),
                ("reads/s, all", "{reads_all:.0f}")),
)
