"""The parts of lab-traffic that need more than its page: replicas that start by themselves, and
four policies with one slow backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from labs.harness.workloads.autoscaler import Autoscaler
from labs.harness.workloads.requests import RequestWorkload
from labs.harness.workloads.statistics import percentile
from services.resilience.target_tracking import TargetTracking

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

POLICIES = {"two-choices": "power_of_two_choices", "least": "least_connections",
            "round-robin": "round_robin", "ip-hash": "ip_hash"}
REPLICAS = ("web-1", "web-2", "web-3", "web-4", "web-5", "web-6")
USUAL_REPLICAS = 3
PLACES = 2  # requests that a replica gets at a time
MEASURED_S = 1.25
PLAIN = {
    "LOAD_BALANCER_RETRY_ATTEMPTS": "1",
    "LOAD_BALANCER_OUTLIER_FAILURES": "0",
    "LOAD_BALANCER_BREAKER_FAILURES": "0",
    "LOAD_BALANCER_BACKEND_WAIT_MS": "0",
    "LOAD_BALANCER_HEALTH_INTERVAL_MS": "200",
    "LOAD_BALANCER_HEALTH_RISE": "1",
}


async def autoscaler(stage: Stage) -> Autoscaler:
    """Looks at `front`; at 70 % of its places taken, more are wanted. It has stopped the spare ones
    (of which the control has none)."""
    policy = TargetTracking(target=0.7, minimum=USUAL_REPLICAS, maximum=len(REPLICAS),
                            cool_down_s=60)
    replicas = [each for each in REPLICAS if each in stage.cluster.nodes]
    scaler = Autoscaler(stage.cluster, "front", replicas, policy, places=PLACES, tell=stage.tell)
    await scaler.begin()
    return scaler


@asynccontextmanager
async def at_work(scaler: Autoscaler) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(scaler.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def scale(stage: Stage, scaler: Autoscaler, load: RequestWorkload, before: float) -> None:
    """The spike goes on, and replicas start. `before`: goodput without them, a second."""
    began = stage.now_ns()

    def all_serve() -> bool:
        if task.done():
            task.result()  # what it raised
        return scaler.serving == len(REPLICAS)

    async with at_work(scaler) as task:
        await stage.require(all_serve, within_s=30, what=f"{len(REPLICAS)} replicas serve")
        grown = stage.now_ns()
        await stage.require(lambda: stage.now_ns() >= grown + MEASURED_S * 1e9, within_s=20,
                            what="a while with all of them")
    end = stage.now_ns()
    end -= load.deadline_ms * 1_000_000  # what was sent later may not have ended
    during = load.since(grown, end)
    good = [each.ms for each in during if each.type == "ok"]
    vain = sum(each.error == "deadline-exceeded" for each in during)
    seconds, took = (end - grown) / 1e9, (grown - began) / 1e9
    p99 = percentile(good, 99)
    stage.figures(grown=len(good) / seconds, took=took, grown_p99=p99)
    stage.claim("Replicas that start by themselves serve the spike, hardly anyone waits in vain",
                len(good) / seconds >= 1.3 * before and vain <= 0.1 * len(during),
                f"{len(REPLICAS)} instead of {USUAL_REPLICAS} after {took:.1f} s: "
                f"{len(good) / seconds:.0f} a second answered in time instead of {before:.0f}, "
                f"99 % of them within {p99:.0f} ms; {vain} of {len(during)} waited in vain")


async def compare_policies(stage: Stage) -> None:
    slow_ms: dict[str, float] = {}
    for name in POLICIES:
        load = await through(stage, name, 15 if name == "ip-hash" else 48)
        slow_ms[name] = percentile([each.ms for each in load.ended], 90)
        used = {each.node for each in load.ended if each.node}
    stage.figures(least=slow_ms["least"], choices=slow_ms["two-choices"], used=len(used),
                  turns=slow_ms["round-robin"])
    stage.claim("With a slow backend, policies that look at load keep nine in ten callers quick",
                max(slow_ms["least"], slow_ms["two-choices"]) < 0.7 * slow_ms["round-robin"],
                f"nine in ten were answered, or gave up, within {slow_ms['least']:.0f} ms by least "
                f"connections, {slow_ms['two-choices']:.0f} ms by two choices, "
                f"{slow_ms['round-robin']:.0f} ms by round robin")
    stage.claim("IP hash sends all who share an address to one backend", len(used) == 1,
                f"{', '.join(sorted(used))} alone answered, of three")


async def through(stage: Stage, balancer: str, count: int) -> RequestWorkload:
    load = RequestWorkload("c1", balancer, seed=stage.seed, rate_per_s=60, deadline_ms=1_500)
    async with stage.running(load):
        await stage.require(lambda: len(load.ended) >= count, within_s=20, what=f"{count} requests")
    return load
