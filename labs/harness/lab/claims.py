"""Claims that many labs make of a register workload's history, each decided by a checker."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

from labs.harness.checkers import check_linearizable, check_lost_writes
from labs.harness.history import load
from labs.harness.lab.measures import Tail, first_after_s, lacks
from labs.harness.lab.stage import Stage
from labs.harness.workloads.register import RegisterWorkload

CHECK_WITHIN_S = 20.0


def no_acknowledged_write_is_lost(stage: Stage, *, control_breaks: bool = True) -> None:
    """Every acknowledged write was seen by the final reads, or was overwritten.

    Leaves the figures `lost` and `acknowledged`, both numbers of writes.
    """
    result = check_lost_writes(load(stage.history_path))
    lost, acknowledged = len(result.stats["lost_writes"]), result.stats["acknowledged"]
    stage.figures(lost=lost, acknowledged=acknowledged)
    evidence = f"{lost} of {acknowledged} acknowledged writes are gone"
    stage.claim(
        "Healed, no acknowledged write is lost", result, evidence, control_breaks=control_breaks
    )


def the_history_is_linearizable(stage: Stage) -> None:
    """One order of all operations explains every answer (Herlihy and Wing 1990)."""
    history = load(stage.history_path)
    result = check_linearizable(history, "register", timeout_s=CHECK_WITHIN_S)
    evidence = f"{len(history.ops)} operations, checked by {result.algorithm}"
    stage.claim("The history is linearizable", result, evidence, control_breaks=True)


def one_leader_per_term(stage: Stage, store: Iterable[str]) -> None:
    """Raft §5.2, "election safety: at most one leader can be elected in a given term"."""
    leaders: dict[int, set[str]] = {}
    for node in store:
        for event in stage.protocol_events(node, "become_leader"):
            leaders.setdefault(event["term"], set()).add(node)
    told = [f"{' and '.join(leaders[term])} in term {term}" for term in sorted(leaders)]
    alone = all(len(nodes) == 1 for nodes in leaders.values())
    stage.claim("The store had one leader per term", alone, ", ".join(told))


async def only_the_majority_goes_on(
    stage: Stage, clients: RegisterWorkload, cut_ns: int, majority: list[str], late: str
) -> str:
    """With c1 on the smaller side of a cut and c2 on the other. The node that leads the latter.

    Goes on until the majority has applied 20 entries beyond all that `late`, cut off from it, has
    in its log, be it committed or not. Leaves the figures `accepted` (operations at c1) and
    `outage_s` (until a write at c2).
    """
    await stage.eventually(lambda: clients.writes("c2", since_ns=cut_ns) >= 20,
                           within_s=20, what="20 writes acknowledged at c2")  # fmt: skip
    await stage.eventually(lambda: lacks(stage, late, 20), within_s=20,
                           what=f"20 entries beyond those of {late}")  # fmt: skip
    leads = await stage.leading(majority)
    small, large = clients.between("c1", cut_ns), clients.between("c2", cut_ns)
    accepted, outage_s = sum(op.type == "ok" for op in small), first_after_s(large, cut_ns)
    stage.figures(accepted=accepted, outage_s=outage_s)
    stage.claim(
        "The minority acknowledges nothing, the majority goes on",
        not accepted and not isnan(outage_s),
        f"beside the old leader: {accepted} of {len(small)} operations; "
        f"without it: a write {outage_s:.2f} s after the cut",
    )
    return (leads or majority)[0]


async def only_who_has_it_all_leads(
    stage: Stage,
    clients: RegisterWorkload,
    told: Tail,
    late: str,
    voters: list[str],
    goal: int,
    since_ns: int,
) -> None:
    """`late` has missed entries up to `goal`, and `voters`, a majority with it, hear nobody else.

    Leaves the figure `late`: what became of it, in words. If it leads without them it is given time
    to overwrite what it has missed.
    """
    back_ns = stage.now_ns()
    await stage.require(
        lambda: (
            told.led(late, since_ns=since_ns) is not None
            or told.refused(late, voters, since_ns=since_ns)
        ),
        within_s=60,
        what=f"{late} leads, or is refused",
    )
    last, now_ns = told.led(late, since_ns=since_ns), stage.now_ns()
    if last is None:
        stage.figures(late="refused")
        how = f"{late} was refused"
    else:
        stage.figures(late=f"led after {(now_ns - back_ns) / 1e9:.2f} s")
        how = f"{late} led with entries up to {last} in its log"
        missed = max(0, goal - last)
        await stage.eventually(
            lambda: sum(clients.writes(place, since_ns=now_ns) for place in clients.places)
            > missed + 5,
            within_s=10,
            what="writes acknowledged while it leads",
        )
    stage.claim(
        "Nobody leads without all that was acknowledged",
        last is None or last >= goal,
        f"{how}; the others had applied {goal}",
        control_breaks=True,
    )
