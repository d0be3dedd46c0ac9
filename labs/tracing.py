"""How do you find out why a request is slow when five services worked on it?

Claim.    The trace of a slow order, set against what is usual, names what is slow, hidden behind
          four services; the log lines of all of them are joined by its request id.
Method.   Customers order: gateway → load balancer → orders → inventory → store. The seed hides
          what is slow: a link behind the balancer, or the store's replication; the diagnosis reads
          traces alone. Then head sampling records one in ten, against tail sampling, which decides
          when a request has ended.
Control.  One service does not pass the context on. Same load, same slowness: the trace ends before
          the place that would have told, and the log lines behind it have ids nobody knows.
"""

from collections import Counter

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.testbed.shop import shop_cluster
from labs.harness.traces import Place, Trace, culprit, gather, slower_than, usual
from labs.harness.traces.sampling import tail_sampled
from labs.harness.workloads.orders import OrderWorkload, fill_shelves

SERVICES = ("gateway", "balancer", "orders", "inventory", "n")  # as their nodes' names begin
SLOW_MS = 350   # what a customer calls slow; an order takes some 30 ms
DELAY_MS = 200  # each way, on what the seed hides
SHARE = 0.1     # of the traces that head sampling records
ENOUGH = 0.999  # of the orders
# One attempt an order: its trace tells one story, and retries do not add to what is slow.
ONCE = {"gateway": {"GATEWAY_RETRIES": "0"}, "balancer": {"LOAD_BALANCER_RETRY_ATTEMPTS": "1"}}


async def scenario(stage: Stage) -> None:
    await stage.cluster.ready(within_s=20)
    await fill_shelves(stage.cluster, "inventory")
    orders = OrderWorkload("c1", seed=stage.seed, rate_per_s=20)

    def slow(since_ns: int) -> int:
        return sum(each.ms > SLOW_MS for each in orders.since(since_ns))

    async with stage.running(orders):
        await stage.require(lambda: len(orders.ended) >= 40 and orders.slow_lately(SLOW_MS) < 0.25,
                            within_s=30, what="40 orders, hardly any of the last ones slow")
        hidden, links = hide(stage, await stage.primary())
        delay = stage.nemesis.delay(links, time_ms=DELAY_MS)
        async with stage.fault(delay, "something behind the balancer is slow now") as hit:
            await stage.require(lambda: slow(hit) >= 12, within_s=20, what="12 slow orders")
            orders.sample, drawn = SHARE, stage.now_ns()
            await stage.require(lambda: slow(drawn) >= 20, within_s=30, what="20 slow orders more")
    traces = await gather(stage.cluster, stage.history_path, stage.recorder.start_ns)
    recorded = [trace for trace in traces if trace.op.invoke_ns < drawn]
    find(stage, [trace for trace in recorded if trace.op.invoke_ns < hit],
         [trace for trace in recorded if trace.op.invoke_ns >= hit], hidden)
    join(stage, [trace for trace in recorded if trace.op.type == "ok"])
    sample(stage, recorded, [trace for trace in traces if trace.op.invoke_ns >= drawn])


def hide(stage: Stage, leader: str) -> tuple[Place, list[tuple[str, str]]]:
    """What is to be slow, in the words of a diagnosis, and the links that make it so."""
    followers = [node for node in stage.cluster.nodes if node[0] == "n" and node != leader]
    ways = [("orders-1", "inventory"), ("orders-2", "inventory"), ("inventory", leader),
            ("orders-1", leader), ("orders-2", leader)]
    places: dict[Place, list[tuple[str, str]]] = {("link", f"{a}→{b}"): [(a, b)] for a, b in ways}
    places["service", leader] = [(leader, node) for node in followers]  # it awaits a majority
    return stage.random.choice(list(places.items()))


def find(stage: Stage, before: list[Trace], traces: list[Trace], hidden: Place) -> None:
    usually = usual((trace.all, trace.root) for trace in before)
    found = [culprit(trace.all, trace.root, usually) for trace in slower_than(traces, SLOW_MS)]
    said, times = Counter(each.place for each in found).most_common(1)[0]
    one = next(each for each in found if each.place == said)
    own_ms, order_ms = one.own_us / 1000, one.total_us / 1000
    stage.figures(found=said == hidden, where=said[1], own_ms=own_ms, order_ms=order_ms)
    stage.claim("A slow order's trace names what is slow", said == hidden,
                f"on its critical path {one}; {times} of {len(found)} slow orders say the same, "
                f"each by itself; hidden was the {' '.join(hidden)}", control_breaks=True)


def join(stage: Stage, traces: list[Trace]) -> None:
    joined = sum(trace.joined(SERVICES) for trace in traces)
    whole = sum(trace.whole(SERVICES) for trace in traces)
    stage.figures(joined=joined, whole=whole, orders=len(traces))
    stage.claim("The log lines of all services are joined by the request id",
                joined >= ENOUGH * len(traces) > 0,
                f"all five tell of {joined} of {len(traces)} orders", control_breaks=True)
    stage.claim("Every order is one whole trace, each span below a parent that is there",
                whole >= ENOUGH * len(traces) > 0, f"{whole} of {len(traces)}", control_breaks=True)


def sample(stage: Stage, recorded: list[Trace], drawn: list[Trace]) -> None:
    ends, heads = slower_than(recorded, SLOW_MS), slower_than(drawn, SLOW_MS)
    sampler = tail_sampled(recorded, entry="gateway", slow_us=SLOW_MS * 800, share=SHARE)
    tail = sum(trace.root.trace_id in sampler.kept for trace in ends)
    head = sum(bool(trace.spans) for trace in heads)
    sizes = (sampler.bytes_in, sampler.bytes_kept)
    all_kb, tail_kb = (size / len(recorded) / 1000 for size in sizes)
    head_kb = sum(span.bytes for trace in drawn for span in trace.spans) / len(drawn) / 1000
    stage.figures(head=head, head_of=len(heads), head_most=head > len(heads) / 2, tail=tail,
                  tail_of=len(ends), all_kb=all_kb, head_kb=head_kb, tail_kb=tail_kb)
    stage.claim("Head sampling loses most slow orders, tail sampling keeps them",
                head < len(heads) / 2 and tail >= 0.9 * len(ends) > 0,
                f"a tenth drawn at the root: {head} of {len(heads)} slow orders have a trace; "
                f"decided at the end: {tail} of {len(ends)}; kept {head_kb:.1f} and {tail_kb:.1f} "
                f"of {all_kb:.1f} kB an order")


def answer(results: Results) -> str:
    good, broken = (result.figures for result in results.values())
    return f"""
        Give each request a trace id and a request id at the edge, hand them on with every call, and
        have each service tell one event per request and per call. Then a slow order tells why: of
        {good["order_ms"]:.0f} ms its critical path spent {good["own_ms"]:.0f} at {good["where"]}.
        A call that took long while its callee was quick is a slow link; a request whose own calls
        were quick, a slow service. By the request id the log lines of all five services came
        together for {good["joined"]} of {good["orders"]} orders.

        It breaks at one hop. With one service that passes nothing on, {broken["whole"]} of
        {broken["orders"]} traces were whole; a slow one said: something behind {broken["where"]}.

        Everything recorded took {good["all_kb"]:.1f} kB an order. Drawing one in ten at the root
        made that {good["head_kb"]:.1f}, and left {good["head"]} of {good["head_of"]} slow orders a
        trace: the draw comes before anything is known. Deciding at the end kept {good["tail"]} of
        {good["tail_of"]} with {good["tail_kb"]:.1f} kB; but all must be made, sent and held first.
    """


LAB = Lab(
    name="tracing", questions=(16,), scenario=scenario, answer=answer,
    question="How do you find out why a request is slow when five services worked on it?",
    variants=(
        Variant("passed on", "holds", "every service hands trace and request id to the next",
                lambda _: shop_cluster(settings=ONCE)),
        Variant("forgotten", "breaks", "orders calls inventory and store without them",
                lambda _: shop_cluster(settings={**ONCE, "orders": {"ORDERS_PROPAGATION": "off"}})),
    ),
    predictions=(
        Prediction("One service of five passes no ids on. Does a trace still name what is slow?",
                   lambda results: results["forgotten"].figures["found"],
                   "what is behind it begins traces of its own, to which nothing leads."),
        Prediction("One trace in ten is drawn at the root. Will most slow ones be among them?",
                   lambda results: results["passed on"].figures["head_most"],
                   "when it is drawn nobody knows yet that the request will be slow."),
    ),
    follow_ups={
        "What stays out?": "Payloads and secrets. Ids, sizes, outcomes go in; texts are bounded.",
        "Queues?": "The ids travel in message headers; a batch has many parents: span links.",
        "Clocks?": "Here all share one. Between machines order is told by parent and child alone.",
    },
    misses="All spans reach one disk. Real collectors lose some; tail sampling needs all at one.",
    comparison=(("slow order explained", "{found}"), ("whole traces", "{whole} of {orders}")),
)
