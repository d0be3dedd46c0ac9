"""How do you make a service highly available?

Claim.    With a replica to take over, and somebody who notices, faults cost next to nothing: behind
          a load balancer with health checks and retries no request is lost when a replica dies, nor
          when a whole site does; the store elects a new primary within moments and loses nothing.
Method.   Four replicas at two sites behind a load balancer; a store of three, one node at each site
          and a witness at a third. Kill one replica. Then kill a site: two replicas and the store's
          primary. Requests and writes go on throughout.
Controls. One instance of everything. And replicas behind a load balancer that does not look.
"""

from labs.harness.checkers.outages import Outage, nines, outage
from labs.harness.lab.claims import no_acknowledged_write_is_lost
from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.testbed.description import ClusterSpec
from labs.harness.testbed.web import web_cluster
from labs.harness.workloads.register import RegisterWorkload
from labs.harness.workloads.requests import RequestWorkload

REPAIR_S = 1800.0  # until somebody has been woken, has looked and has repaired it: an assumption
CHECKED = {
    "LOAD_BALANCER_HEALTH_INTERVAL_MS": "100", "LOAD_BALANCER_HEALTH_TIMEOUT_MS": "1000",
    "LOAD_BALANCER_RETRY_ATTEMPTS": "3", "LOAD_BALANCER_RETRY_MINIMUM_PER_S": "10",
    "LOAD_BALANCER_OUTLIER_EJECTION_MS": "1000",  # health checks keep out what stays dead longer
}
BLIND = {"LOAD_BALANCER_HEALTH_INTERVAL_MS": "0", "LOAD_BALANCER_OUTLIER_FAILURES": "0",
         "LOAD_BALANCER_BREAKER_FAILURES": "0", "LOAD_BALANCER_RETRY_ATTEMPTS": "1"}


async def scenario(stage: Stage) -> None:
    primary = await stage.primary(within_s=20)
    await stage.cluster.ready(within_s=20)
    replicas = [node for node in stage.cluster.nodes if node.startswith("web")]
    store = [node for node in stage.cluster.nodes if node.startswith("n")]
    requests = RequestWorkload("c1", "balancer", seed=stage.seed, rate_per_s=100, deadline_ms=2_000)
    writes = RegisterWorkload(places=("c2",), seed=stage.seed, rate_per_s=40, nodes=store)
    async with stage.running(requests, writes):
        await stage.require(lambda: len(requests.ended) >= 60 and writes.writes("c2") >= 10,
                            within_s=20, what="60 requests answered, 10 writes acknowledged")
        async with stage.fault(stage.nemesis.kill(replicas[0]), f"{replicas[0]} dies") as hit:
            a_replica_died(stage, await enough(stage, requests, hit))
        site = [*replicas[: (len(replicas) + 1) // 2], primary]
        async with stage.fault(stage.nemesis.kill(site), f"site lost: {' '.join(site)}") as hit:
            await the_primary_died(stage, writes, hit, len(store) == 1)
            a_site_was_lost(stage, await enough(stage, requests, hit))
        back = stage.now_ns()
        await stage.require(lambda: {each.node for each in requests.since(back)} >= {*replicas}
                            and writes.writes("c2", since_ns=back) >= 10,
                            within_s=20, what="every replica serves again, 10 writes more")
    await writes.final_reads(stage.cluster, "c2", within_s=10)
    no_acknowledged_write_is_lost(stage, control_breaks=False)


def a_replica_died(stage: Stage, cost: Outage) -> None:
    stage.figures(replica_lost=cost.lost, replica_asked=cost.asked)
    stage.claim("No request is lost when a replica dies", cost.lost == 0,
                f"{cost.lost} of {cost.asked} requests were not answered while it was gone",
                control_breaks=True)


async def enough(stage: Stage, requests: RequestWorkload, since_ns: int) -> Outage:
    """What the fault costs, once enough have been asked while it lasts, and have ended."""
    await stage.require(lambda: len(requests.since(since_ns)) >= 60,
                        within_s=20, what="60 requests asked and ended")
    until_ns = stage.now_ns()
    # From a moment before: what was under way when the fault struck is its, too.
    sent = requests.since(since_ns - 50_000_000, until_ns)
    return outage(((each.type == "ok", each.return_ns) for each in sent), since_ns, until_ns)


async def the_primary_died(stage: Stage, writes: RegisterWorkload, hit: int, alone: bool) -> None:
    await stage.eventually(lambda: writes.writes("c2", since_ns=hit) >= 10,
                           within_s=1 if alone else 10, what="10 writes without the primary")
    done = [op.return_ns for op in writes.between("c2", hit) if op.type == "ok" and op.f != "read"]
    outage_s = (min(done) - hit) / 1e9 if done else REPAIR_S
    stage.figures(failover_s=outage_s, took_over=bool(done))
    stage.claim("The store gets a new primary by itself", bool(done),
                f"a write was acknowledged {outage_s:.2f} s after the primary's death" if done else
                "no write was acknowledged while the primary was dead", control_breaks=alone)


def a_site_was_lost(stage: Stage, cost: Outage) -> None:
    down_s = max(cost.share * REPAIR_S, stage.result.figures["failover_s"])
    stage.figures(site_lost=cost.lost, site_asked=cost.asked, silent_s=cost.silent_s,
                  share=cost.share, down_s=down_s, nines=nines(down_s))
    stage.claim("No request is lost when a site is lost", cost.lost == 0,
                f"{cost.lost} of {cost.asked} were not answered ({cost.share:.0%}); nobody was "
                f"served for {cost.silent_s:.2f} s at most; with one such loss a month and repair "
                f"in half an hour: {nines(down_s):.1f} nines", control_breaks=True)


def answer(results: Results) -> str:
    good, one, blind = (result.figures for result in results.values())
    return f"""
        Two of everything, and somebody who notices within moments. One replica of four died, and
        {good["replica_lost"]} of {good["replica_asked"]} requests were lost: what it had not
        answered went to another. A whole site died, with two replicas and the store's primary:
        {good["site_lost"]} of {good["site_asked"]} were lost, and a write was acknowledged again
        after {good["failover_s"]:.2f} s, by a primary that the remaining majority had elected.

        With one instance {one["site_lost"]} of {one["site_asked"]} were lost: it is down until
        somebody repairs it. And redundancy alone is not enough. Behind a load balancer that does
        not look, {blind["site_lost"]} of {blind["site_asked"]} failed while half of the replicas
        stood ready.

        In nines, were a site lost once a month and repaired in half an hour: {good["nines"]:.1f}
        with redundancy ({good["down_s"]:.1f} s without writes), {blind["nines"]:.1f} behind the
        blind balancer, {one["nines"]:.1f} with one instance. The time to recover is what counts.
    """


def cluster(own: dict[str, str], *, replicas: int, store: int) -> ClusterSpec:
    return web_cluster("web", balancers={"balancer": own}, replicas=[{}] * replicas, store=store)


LAB = Lab(
    name="availability", questions=(3,), scenario=scenario, answer=answer,
    question="How do you make a service highly available?",
    variants=(
        Variant("redundant", "holds", "four replicas, checked and retried; a store of three",
                lambda _: cluster(CHECKED, replicas=4, store=3)),
        Variant("one instance", "breaks", "one replica, a store of one",
                lambda _: cluster(CHECKED, replicas=1, store=1)),
        Variant("no health checks", "breaks", "as redundant, but the balancer does not look",
                lambda _: cluster(BLIND, replicas=4, store=3)),
    ),
    predictions=(
        Prediction("Half of the replicas die at once. Will requests be lost?",
                   lambda results: results["redundant"].figures["site_lost"] > 0,
                   "each is sent again to one that lives, and then the dead are asked no more."),
        Prediction("Four replicas, no health checks, one dies. Is everyone still served?",
                   lambda results: results["no health checks"].figures["replica_lost"] == 0,
                   "it is still given its turn."),
    ),
    follow_ups={
        "And the load balancer?": "Two of them: an address that moves (VRRP, anycast), or DNS.",
        "Why three sites for two?": "A majority of two is two: each site's loss would stop the "
            "store. A witness in a third place breaks the tie.",
        "Which requests may be sent again?": "Idempotent ones, within a budget.",
    },
    misses="Faults here are clean deaths; real ones are half-dead replicas and bad releases.",
    comparison=(
        ("requests lost, a replica dead", "{replica_lost} of {replica_asked}"),
        ("requests lost, a site lost", "{site_lost} of {site_asked}"),
        ("longest time nobody was served", "{silent_s:.2f} s"),
        ("nines, a site lost each month", "{nines:.1f}"),
    ),
)
