"""Which alert wakes somebody for what users feel, and for nothing else?

Claim.    Alert on the symptom, measured against an error budget: it fires within seconds of an
          outage and ends soon after it. Burn rates over two windows ignore a blip that a naive
          threshold cries about, and catch a slow leak that it misses.
Method.   A real Prometheus scrapes the replicas and evaluates the rules below, while users write.
          One node is cut off: 45 users meet it at once, then one write of ten lands there. Then
          nobody reaches a majority, and all writes fail. A stress run before says what fits in.
Control.  The same outage under an alert on the cause alone ("a node is down"): every node is up,
          every write fails, and nobody is told.
"""

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.testbed.description import ClusterSpec, kv_cluster
from labs.harness.testbed.members.prometheus_api import PrometheusApi
from labs.harness.workloads import slo, stress
from labs.harness.workloads.writes import Writes

USERS_PER_S, P99_MS, BLIP, ONE_OF, WITHIN_S = 60, 300, 45, 10, 6
TIMERS = {"KV_ELECTION_TICKS": "40", "KV_HEARTBEAT_TICKS": "4"}  # 0.6 to 1.2 s of silence
CAUSE = """groups:
- name: cause
  rules:
  - {alert: NodeDown, expr: 'max_over_time(up[4s]) == 0', for: 2s}
"""
# The objective: 99 of 100 writes. A burn rate is a multiple of the 0.01 that may fail; two windows
# each. 65 errors at least: where few requests come, one of them is already a high rate.
SYMPTOMS = CAUSE + slo.error_rules(("1500ms", "2s", "3s", "15s")) + """- name: symptoms
  rules:
  - {alert: Naive, expr: 'errors:1500ms > 0.25'}
  - {alert: BurnFast, expr: 'errors:3s > 50 * 0.01 and errors:1500ms > 50 * 0.01'}
  - {alert: BurnSlow, expr: 'errors:15s > 3 * 0.01 and errors:2s > 3 * 0.01 and failed:15s > 65'}
"""


def watched(nodes: int, rules: str) -> ClusterSpec:
    return slo.monitored(kv_cluster(nodes, protocol="raft", environment=TIMERS), rules)


async def scenario(stage: Stage) -> None:
    leader = await stage.primary(within_s=30)
    steps = await stress.stress_writes(stage.cluster.address("c1", leader))
    stage.tell(f"stress run: {stress.in_words(steps)}")
    stage.figures(capacity=stress.capacity(steps, p99_ms=P99_MS))
    alarm = PrometheusApi(stage.cluster.session, stage.cluster.direct_address("prometheus"))
    users = Writes("c1", seed=stage.seed, rate_per_s=USERS_PER_S)
    async with stage.running(users):
        began = await alarm.now()
        await stage.require(lambda: alarm.scraped(stage.cluster.nodes, 8), within_s=30,
                            what="Prometheus has scraped every node eight times")
        early = await alarm.fired(began)
        stage.claim("While all is well no alert fires", not early, slo.in_words(early, began))
        if "Naive" in await alarm.rules():
            await blip_and_leak(stage, alarm, users, await stage.primary())
        await outage(stage, alarm, users)
        await slo.keep(stage, alarm, began)


async def blip_and_leak(stage: Stage, alarm: PrometheusApi, users: Writes, leader: str) -> None:
    sick, *others = sorted(stage.cluster.nodes, key=lambda node: node == leader)
    async with stage.fault(stage.nemesis.partition([[sick], others]), f"cut off: {sick}"):
        await stage.require(lambda: stage.gave_up(sick, leader), within_s=30, what="it notices")
        blip = await alarm.now()
        await users.burst(BLIP, sick)
        await stage.eventually(lambda: alarm.has_fired("Naive", blip), within_s=WITHIN_S,
                               what="the naive threshold cries")
        await stage.require(lambda: alarm.is_quiet("Naive"), within_s=20, what="the blip is over")
        cried, leak = await alarm.fired(blip), await alarm.now()
        users.node, users.astray = sick, ONE_OF
        await stage.eventually(lambda: alarm.has_fired("BurnSlow", leak), within_s=20,
                               what="the slow burn is caught")
        caught = await alarm.fired(leak)
        users.astray = 0
    await stage.require(lambda: alarm.is_quiet("BurnSlow"), within_s=20, what="the leak is over")
    stage.figures(blip=slo.in_words(cried, blip), leak=slo.in_words(caught, leak))
    stage.claim("A blip makes the naive threshold cry, and no burn rate", set(cried) == {"Naive"},
                f"{BLIP} users met {sick} at once: {slo.in_words(cried, blip)}")
    stage.claim("A slow leak is caught by a burn rate, and not by the threshold",
                set(caught) == {"BurnSlow"}, f"one of {ONE_OF}: {slo.in_words(caught, leak)}")


async def outage(stage: Stage, alarm: PrometheusApi, users: Writes) -> None:
    nodes = stage.cluster.nodes
    islands = [list(nodes[at:at + 2]) for at in range(0, len(nodes), 2)]
    began = await alarm.now()
    async with stage.fault(stage.nemesis.partition(islands), "no majority anywhere") as cut:
        told = await stage.eventually(lambda: alarm.has_fired("BurnFast", began),
                                      within_s=WITHIN_S, what="the alert on a fast burn")
        fired, up = await alarm.fired(began), await alarm.value("sum(up)")
        alive, ready = await stage.cluster.health("live"), await stage.cluster.health("ready")
        sent = users.since(cut)
    healed, lost = await alarm.now(), sum(each.type != "ok" for each in sent)
    stage.figures(lost=lost, sent=len(sent),
                  told=f"{fired['BurnFast'] - began:.1f} s" if told else "never")
    stage.claim("Somebody is told of an outage within its window",
                bool(told) and fired["BurnFast"] - began <= WITHIN_S,
                f"{lost} of {len(sent)} writes failed: {slo.in_words(fired, began)}",
                control_breaks=True)
    stage.claim("An alert on the cause says nothing, for no node is down",
                "NodeDown" not in fired and up == len(nodes), f"{up:.0f} of {len(nodes)} are up")
    stage.claim("Health checks tell it: every node is alive, and none is ready",
                set(alive.values()) == {200} and set(ready.values()) == {503},
                f"live {set(alive.values())}, ready {set(ready.values())}")
    if told:
        await stage.eventually(lambda: alarm.is_quiet("BurnFast"), within_s=20, what="it ends")
        ended_s = await alarm.now() - healed
        stage.claim("The alert ends soon after the outage", ended_s <= WITHIN_S,
                    f"{ended_s:.1f} s after all was well again it fires no more")


def answer(results: Results) -> str:
    symptom, cause = (result.figures for result in results.values())
    return f"""
        Alert on what users feel; keep causes for finding out why. In the outage {symptom["lost"]}
        of {symptom["sent"]} writes failed; the alert on the symptom fired after {symptom["told"]}.
        An alert on a cause, a node being down, said nothing: {cause["lost"]} of {cause["sent"]}
        writes failed while every node was up.

        Measure against an error budget, in two windows: a long one, that it matters, and a short
        one, that it goes on. A blip, {BLIP} users at once: {symptom["blip"]}. A leak, one of
        {ONE_OF} writes: {symptom["leak"]}. A threshold for leaks would cry at every blip.

        Health checks answer one question each: alive (restart me?), ready (send me work?). Plan by
        what was measured: {symptom["capacity"]:.0f} writes a second with a p99 below {P99_MS} ms,
        of which {USERS_PER_S} are used.
    """


LAB = Lab(
    name="monitoring", questions=(17,), scenario=scenario, answer=answer,
    question="How do you monitor a distributed system, and what do you alert on?",
    variants=(
        Variant("symptoms", "holds", "burn rates of the error budget, and a naive threshold",
                lambda nodes: watched(nodes, SYMPTOMS)),
        Variant("cause only", "breaks", "an alert when a node is down, and no other",
                lambda nodes: watched(nodes, CAUSE)),
    ),
    predictions=(Prediction("All writes fail while all processes run. Does 'a node is down' fire?",
                            lambda results: results["cause only"].figures["told"] != "never",
                            "every node answers its scrapes; it only cannot reach a majority."),),
    follow_ups={
        "Who counts what a dead node never answered?": "The client: measure there, too.",
        "Which windows in production?": "5 minutes and an hour at a burn of 14.4 page; 6 hours and "
            "3 days at 1 make a ticket (The Site Reliability Workbook, chapter 5).",
    },
    misses="Seconds stand for hours, and nobody is woken: no Alertmanager. Longer windows, and the "
           "dashboard: make observe.",
    comparison=(("writes failed in the outage", "{lost} of {sent}"), ("told after", "{told}")),
)
