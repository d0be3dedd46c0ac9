"""How do you handle a traffic spike?

Claim.    A service that refuses at the door what it can't serve in time keeps answering the rest:
          goodput holds, callers learn their fate early, and it is over when the spike is. And the
          load balancer must look at load: with one slow backend, least connections and two random
          choices keep nine in ten callers quick, round robin does not, and IP hash does not share.
          Replicas that start by themselves end the need to refuse; a cache, read replicas and a
          queue each take their share before it begins.
Method.   Two backends of 40 requests a second and a slow one of 10, whatever the machine. Ten times
          the usual load for 1.4 seconds, at a balancer that gives each backend two requests at a
          time and refuses the rest; then the usual load. Then the spike again, while an autoscaler
          starts up to three more. Then the first three, a moderate load, four policies. Beside them
          reads of a store and orders: by cache, replicas, queue; without cache; without any.
Control.  No admission control: every request is taken, and waits in line.
"""

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import InvalidRun, Stage
from labs.harness.lab.together import together
from labs.harness.testbed.description import ClusterSpec
from labs.harness.testbed.web import web_cluster
from labs.harness.workloads.autoscaler import Autoscaler
from labs.harness.workloads.requests import RequestWorkload
from labs.harness.workloads.statistics import percentile
from labs.scenarios import layers
from labs.scenarios import traffic as parts

FAST = {"WEB_CONCURRENCY": "1", "WEB_SERVICE_MS": "25"}
SLOW = {"WEB_CONCURRENCY": "1", "WEB_SERVICE_MS": "100"}
CAPACITY = 40 + 40 + 10  # requests a second
USUAL, SPIKE = 30, 200   # requests a second
DEADLINE_MS = 500        # of a caller; then it has given up
SPIKE_S, SETTLING_S = 1.4, 0.8  # goodput is measured once lines have had the time to form


async def scenario(stage: Stage) -> None:
    await stage.cluster.ready(within_s=120)
    await spike(stage, await parts.autoscaler(stage))
    if stage.result.expected == "holds":  # the control is one of admission, not of policies
        await together(parts.compare_policies(stage), layers.shares(stage))
    else:
        await layers.give_up(stage, *parts.REPLICAS[: parts.USUAL_REPLICAS])


async def spike(stage: Stage, scaler: Autoscaler) -> None:
    load = RequestWorkload("c1", "front", seed=stage.seed, rate_per_s=USUAL,
                           deadline_ms=DEADLINE_MS)
    async with stage.running(load):
        await stage.require(lambda: len(load.ended) >= 8, within_s=20, what="8 requests ended")
        begin, load.rate_per_s = stage.now_ns(), SPIKE
        stage.story.fault(f"spike: {SPIKE} requests a second instead of {USUAL}")
        await stage.require(lambda: stage.now_ns() >= begin + SPIKE_S * 1e9,
                            within_s=20, what="the spike's end")
        end = stage.now_ns()
        settled = begin + int(SETTLING_S * 1e9)
        good = sum(each.type == "ok" for each in load.since(settled, end)) / (end - settled) * 1e9
        over, load.rate_per_s = stage.now_ns(), USUAL
        await stage.require(lambda: len(load.since(over)) >= 16,
                            within_s=20, what="16 requests ended that were sent after the spike")
        again = stage.now_ns()
        if stage.result.expected == "holds":  # later: that it was over is no merit of new replicas
            load.rate_per_s = SPIKE
            stage.story.fault(f"the spike again: {SPIKE} requests a second")
            await parts.scale(stage, scaler, load, good)
    during, after = load.since(begin, end), load.since(over, again)
    rate = len(during) / (end - begin) * 1e9
    if rate < 0.8 * SPIKE:  # with less the control has no line that is long enough
        raise InvalidRun(f"the load came to {rate:.0f} requests a second: no spike of {SPIKE}")
    vain = sum(each.error == "deadline-exceeded" for each in during)
    p50, p99 = (percentile([each.ms for each in during], each) for each in (50, 99))
    served = sum(each.type == "ok" for each in after)
    stage.figures(goodput=good, rate=rate, vain=vain, spiked=len(during), p50=p50, p99=p99,
                  served=served, after=len(after))
    stage.claim("Through the spike goodput does not collapse", good >= 0.4 * CAPACITY,
                f"{good:.0f} requests a second were answered in time, of {rate:.0f} that came; "
                f"capacity is {CAPACITY}", control_breaks=True)
    stage.claim("Hardly anyone waits in vain", vain <= 0.1 * len(during),
                f"{vain} of {len(during)} callers waited until their deadline for nothing; half "
                f"knew after {p50:.0f} ms, 99 % after {p99:.0f} ms", control_breaks=True)
    stage.claim("When the spike is over, so is the trouble", served >= 0.7 * len(after),
                f"{served} of the next {len(after)} requests were answered in time",
                control_breaks=True)


def answer(results: Results) -> str:
    shed, taken = (result.figures for result in results.values())
    return f"""
        First, decide whom not to serve. At {shed["rate"]:.0f} requests a second, with capacity for
        {CAPACITY}, refusing at the door kept {shed["goodput"]:.0f} a second answered in time; half
        of all callers knew within {shed["p50"]:.0f} ms, 99 % within {shed["p99"]:.0f}. Taking
        everything in left {taken["goodput"]:.0f} a second: each waited behind callers who had given
        up, {taken["vain"]} of {taken["spiked"]} in vain, with the backends fully busy. And it
        outlived the spike: {taken["served"]} of the next {taken["after"]} requests were answered in
        time, {shed["served"]} of {shed["after"]} with refusal.

        Then use all you have: balance by load. With one backend of three four times slower, nine in
        ten callers had their answer, or gave up, within {shed["least"]:.0f} ms by least
        connections, {shed["choices"]:.0f} by two random choices, which need no exact counts, and
        {shed["turns"]:.0f} by round robin, which goes on feeding the slow one. IP hash knows
        nothing of load either, and all behind one address got one backend.

        Refusing buys the time that more capacity needs: replicas started by themselves served
        after {shed["took"]:.1f} s here, and then {shed["grown"]:.0f} a second were answered in
        time, 99 % within {shed["grown_p99"]:.0f} ms. In earnest it takes minutes, a line seconds.

        And let little of it come that far. A cache kept {shed["hit"]:.0%} of the reads from the
        store, followers answered {shed["followed"]:.0%} of the rest, {shed["led"]:.0%} was left to
        the leader. In time were {shed["cached"]:.0%}; without the cache {shed["replicas"]:.0%}, by
        one node alone {shed["alone"]:.0%}. Orders can wait: a queue took {shed["accepted"]:.0%}
        in time, {shed["direct"]:.0%} could be done at once; its backlog of {shed["backlog"]} was
        gone {shed["later_s"]:.1f} s after the spike.
    """


def cluster(others: dict[str, str], spare: int = 0, **front: str) -> ClusterSpec:
    balancers = {name: {**parts.PLAIN, "LOAD_BALANCER_POLICY": policy}
                 for name, policy in {"front": "power_of_two_choices", **others}.items()}
    balancers["front"] |= front
    return web_cluster("web", balancers=balancers, replicas=[FAST, FAST, SLOW] + [FAST] * spare,
                       spare=spare, clients=("c1",))


LAB = Lab(
    name="traffic", questions=(14,), scenario=scenario, answer=answer,
    question="How do you handle a traffic spike?",
    variants=(
        Variant("load shedding", "holds", "two requests at each backend; the rest is refused",
                lambda _: layers.beside(cluster(
                    parts.POLICIES, 3, LOAD_BALANCER_BACKEND_IN_FLIGHT_MAX=str(parts.PLACES)))),
        Variant("no admission control", "breaks", "every request is taken, and waits in line",
                lambda _: cluster({})),
    ),
    predictions=(
        Prediction("Nothing is refused. Are more callers served in time than with refusal?",
                   lambda results: results["no admission control"].figures["goodput"]
                   > results["load shedding"].figures["goodput"],
                   "the line grows until everybody at its head has given up already."),
    ),
    follow_ups={
        "Whom to refuse?": "The least important, and evenly: by client quota, by priority, never "
            "the retries of one and all of another. With Retry-After, and jitter.",
        "Why not longer lines?": "They add waiting, not capacity; they are for short bursts.",
    },
    misses="One cache, one broker, one machine; and real callers retry, which is worse.",
    comparison=(("answered in time, a second", "{goodput:.0f}"), ("in vain", "{vain} of {spiked}"),
                ("after the spike", "{served} of {after}")),
)
