"""Which consistency models are there, how do they differ, and what does each cost?

Claim.    Each model keeps what it promises and no more. From linearizable over sequential, causal
          and a session's own guarantees down to eventual, every step gives up one guarantee, which
          has an anomaly with a name; and some of the steps save a wait for other nodes.
Method.   One program for all: sessions move between a node, a near one, and a far one that hears
          the near one at most. Each request says what it asks for. Checkers judge what was told.
Control.  Each weaker model of the causal store, held to the next stronger one, in the same scenes.
"""

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.testbed.description import ClusterSpec, kv_cluster
from labs.harness.workloads.sessions import Levels, Sessions
from labs.scenarios import consistency as scenes
from labs.scenarios.consistency import GUARANTEES, Nodes, Play

TICKS = {"KV_TICK_MS": "10", "KV_ELECTION_TICKS": "30", "KV_HEARTBEAT_TICKS": "4"}
ORIGIN_ALONE = {"KV_ANTI_ENTROPY_TICKS": "0"}  # nobody carries a write round the cut
ONE_WAY_MS = 20.0

# A model is a word of the request: in a store with a log, or in one with dependencies.
NAMES = ("linearizable", "sequential", "causal", "session", "eventual")
MODELS = {name: Levels(name, name) for name in NAMES}
LOGS = {"linearizable", "sequential"}
# The strongest that a model keeps, and with it all those behind it in GUARANTEES.
FIRST_KEPT = {"linearizable": "linearizable", "sequential": "sequential", "causal": "causal",
              "session": "monotonic writes", "eventual": "converges"}  # fmt: skip
STRONGER = {"eventual": "read your writes", "session": "causal", "causal": "sequential"}
CONTROL = "weaker"


async def scenario(stage: Stage) -> None:
    name = stage.cluster.spec.name
    await stage.cluster.ready(30)
    first = await stage.primary() if name in LOGS else stage.cluster.nodes[0]
    nodes = Nodes(first, *[node for node in stage.cluster.nodes if node != first][:2])
    models = list(STRONGER) if name == CONTROL else [name]
    async with Sessions(stage.cluster, stage.recorder, place="c1", seed=stage.seed,
                        deadline_ms=scenes.DEADLINE_MS) as sessions:
        if name != CONTROL:
            await at_a_distance(stage, sessions, name, nodes)
        plays = [Play(stage, sessions, model, MODELS[model], nodes) for model in models]
        await cut_off(stage, plays, nodes)
        await scenes.final_reads(stage, sessions, [key for play in plays for key in play.keys])
    if name == CONTROL:
        for model, stronger in STRONGER.items():
            verdict = scenes.judge(stage, model)[stronger]
            stage.claim(f"{model.capitalize()} requests get: {stronger}", verdict,
                        "in the same scenes", control_breaks=True)
        return
    found, guarantees = scenes.judge(stage, name), list(GUARANTEES)
    kept = guarantees.index(FIRST_KEPT[name])
    stage.figures(**{guarantee: scenes.cell(result) for guarantee, result in found.items()})
    for guarantee in guarantees[kept:]:
        stage.claim(f"Kept: {guarantee}", found[guarantee], f"by {found[guarantee].algorithm}")
    for guarantee in reversed(guarantees[:kept]):
        stage.claim(f"Given up: {guarantee}", scenes.broken_as_it_must(found[guarantee]),
                    f"by {found[guarantee].algorithm}")


async def at_a_distance(stage: Stage, sessions: Sessions, model: str, nodes: Nodes) -> None:
    between = [link for link in stage.cluster.links if link.src in stage.cluster.nodes]
    apart = stage.nemesis.delay(between, time_ms=ONE_WAY_MS)
    async with stage.fault(apart, f"any two nodes {ONE_WAY_MS:g} ms apart, each way"):
        took = await scenes.latencies(stage, sessions, MODELS[model], nodes)
    trip, least = 2 * ONE_WAY_MS, {what: min(took[what]) for what in ("write", "read")}
    waits = [what for what, least_ms in least.items() if least_ms >= trip]
    wanted = {"linearizable": ["write", "read"], "sequential": ["write"]}.get(model, [])
    stage.claim(f"Waiting for a round trip between nodes: {' and '.join(wanted) or 'nothing'}",
                waits == wanted, f"of {trip:g} ms; the quickest write took {least['write']:.1f} "
                f"ms, the quickest read {least['read']:.1f} ms")


async def cut_off(stage: Stage, plays: list[Play], nodes: Nodes) -> None:
    # (Of a log it hears nobody: its near node might come to lead, and tell it everything.)
    heard = () if scenes.has_log(stage) else (nodes.near,)
    others = [node for node in stage.cluster.nodes if node not in (*heard, nodes.far)]
    apart = stage.nemesis.partition({nodes.far: others} | {node: [nodes.far] for node in others})
    async with stage.fault(apart, f"cut: {nodes.far} hears {' '.join(heard) or 'nobody'}"):
        for play in plays:
            await play.all()


def answer(results: Results) -> str:
    lin, seq, causal, session, eventual = (results[name].figures for name in MODELS)
    return f"""
        Linearizable: as if there were one copy. Sequential: one order for all, but a reader may be
        behind ({seq["linearizable"]}). Causal: no effect without its cause, but no single order
        ({causal["sequential"]}). A session's own guarantees: it finds what it wrote and never goes
        back, but what it read does not go with what it writes ({session["writes follow reads"]}).
        Eventual: only that replicas agree in the end ({eventual["read your writes"]}).

        Every cell of the matrix is a checker's verdict on this run. What they cost, nodes
        {ONE_WAY_MS:g} ms apart, medians: a write {lin["write_ms"]:.0f} ms linearizable,
        {seq["write_ms"]:.0f} sequential, {causal["write_ms"]:.1f} causal; a read
        {lin["read_ms"]:.0f}, {seq["read_ms"]:.1f} and {causal["read_ms"]:.1f} ms. A session that
        moves waits for what it has seen: {causal["moved_ms"]:.0f} ms causal,
        {eventual["moved_ms"]:.1f} ms eventual, which is why that one reads the past.
    """


def cluster(name: str, nodes: int) -> ClusterSpec:
    if name in LOGS:
        return kv_cluster(nodes, protocol="raft", environment=TICKS, name=name)
    return kv_cluster(nodes, protocol="causal", environment=TICKS | ORIGIN_ALONE, name=name)


LAB = Lab(
    name="consistency", questions=(2, 18), scenario=scenario, answer=answer,
    question="Which consistency models are there, and what does each one cost?",
    variants=(
        Variant("linearizable", "holds", "Raft; reads ask a majority",
                lambda nodes: cluster("linearizable", nodes)),
        Variant("sequential", "holds", "Raft; any node reads that has what the session has seen",
                lambda nodes: cluster("sequential", nodes)),
        Variant("causal", "holds", "a write is shown once all it depends on is",
                lambda nodes: cluster("causal", nodes)),
        Variant("session", "holds", "the same; a write depends on its session's writes alone",
                lambda nodes: cluster("session", nodes)),
        Variant("eventual", "holds", "the same; no sessions",
                lambda nodes: cluster("eventual", nodes)),
        Variant("held to the next stronger", "breaks", "causal, session and eventual requests",
                lambda nodes: cluster(CONTROL, nodes)),
    ),
    compared=tuple(MODELS),
    predictions=(
        Prediction("A session writes at one node and reads at another, which is cut off. Under "
                   "causal consistency, will it be answered with the past?",
                   lambda results: results["causal"].figures["read your writes"] != "kept",
                   "the node knows what the session has seen, and rather refuses."),
        Prediction("Two sessions each write a key, then read the other's. Both may find nothing "
                   "there under causal consistency. Under sequential, too?",
                   lambda results: results["sequential"].figures["sequential"] != "kept",
                   "in the one order one write comes first, and the other's reader finds it."),
    ),
    follow_ups={
        "Is sequential not enough?": "Not when clients talk behind the store's back: told “done” "
            "by phone, one still reads the past. Linearizable respects real time.",
        "Is causal the best one can have without waiting?": "About: nothing stronger than causal "
            "in real time can be always available and converge (Mahajan et al. 2011).",
        "And the four session guarantees together?": "Causal consistency (Brzezinski et al. 2004); "
            "so a session that is to cost less gives up one: writes follow reads.",
    },
    misses="No transactions: the models of databases (snapshot isolation, serializable) want a lab "
           "of their own. Sticky sessions give some guarantees for less, until their node fails.",
    comparison=(*((name, f"{{{name}}}") for name in GUARANTEES),
                ("write, median", "{write_ms:.1f} ms"), ("read, median", "{read_ms:.1f} ms"),
                ("its own write, at another node", "{moved_ms:.1f} ms")),
)
