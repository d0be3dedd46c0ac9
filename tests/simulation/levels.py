"""`python -m tests.simulation.levels --runs 500 [--model causal]`: each level, both ways.

Goal: a level keeps what it promises, whatever strikes, and no more: the next stronger model's
checker finds it out. Method: the whole service in the simulation, sessions that move between three
nodes under a plan of faults drawn from the seed (`labs.harness.swarm`), then healing; the history
is given to the checkers of lab-consistency. Small histories: to search for a sequential order of a
long one takes for ever.

Exit code: 0 every promise was kept, every weaker level found out, 1 otherwise, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random

from labs.consistency import FIRST_KEPT, LOGS, MODELS
from labs.harness.history import Recorder, load
from labs.harness.history.op import History, Op
from labs.harness.links.fault import LinkFault
from labs.harness.swarm.plan import Fault, Plan, draw
from labs.harness.swarm.run import CONVERGE_WITHIN_S, TIMERS, Run
from labs.harness.testbed.cluster import TimedOut, until
from labs.harness.testbed.description import kv_cluster
from labs.harness.testbed.simulation.cluster import SimulatedTestbed, new_loop
from labs.harness.workloads.sessions import Sessions
from labs.scenarios.consistency import GUARANTEES, LOOK

# The next stronger model of each, and within how many seeds its checker must find a violation.
NEXT = {
    "sequential": ("linearizable", 20),
    "causal": ("sequential", 40),
    "session": ("causal", 80),
    "eventual": ("read your writes", 40),
}
ACTIVE_S = 1.2
QUIET_S = 0.3  # no fault strikes earlier
SESSIONS, KEYS = 4, ("x", "y", "z", "w")
LOST = "acknowledged, never lost"
OPERATIONS = {"causal": 20}  # of a session; fewer where a sequential order is to be searched for
MANY = 40
DEADLINE_MS = 120  # a session that waits for what it has seen does nothing meanwhile


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one seed at one level: what it broke, with why, and what it did not promise."""

    model: str
    seed: int
    operations: int
    broken: dict[str, str] = field(default_factory=dict)
    undecided: tuple[str, ...] = ()
    found_out: bool = False  # by the next stronger model's checker

    @property
    def replay(self) -> str:
        return f"python -m tests.simulation.levels --model {self.model} --runs 1 --seed {self.seed}"


class SessionsRun(Run):
    """Sessions in place of the plan's own operations; its faults as they are."""

    model: str

    async def go(self) -> str:
        for node, disk_ms in zip(self.cluster.nodes, self.plan.disks_ms, strict=True):
            self.cluster.disks[node].synchronize_ms = disk_ms
        how = {"place": "c1", "seed": self.plan.seed, "deadline_ms": DEADLINE_MS}
        try:
            async with Sessions(self.cluster, self.recorder, **how) as sessions:  # type: ignore[arg-type]
                work = [self._session(sessions, number) for number in range(SESSIONS)]
                await asyncio.gather(*work, *(self._strike(fault) for fault in self.plan.faults))
                await self._check()
                await until(self._alike, CONVERGE_WITHIN_S, "healed, all nodes have the same")
                for node in self.cluster.nodes:
                    for key in KEYS:
                        await sessions.begin(LOOK, final=True).read(key, node)
                return ""  # the final reads say who differs
        finally:
            await asyncio.gather(*(client.close() for client in self._clients.values()))

    async def _session(self, sessions: Sessions, number: int) -> None:
        random, operations = Random(f"{self.plan.seed} {number}"), OPERATIONS.get(self.model, MANY)
        session, nodes = sessions.begin(MODELS[self.model]), self.cluster.nodes
        node = random.choice(nodes)
        await asyncio.sleep(QUIET_S)
        for step in range(operations):
            await asyncio.sleep(random.expovariate(operations / ACTIVE_S))
            node = random.choice(nodes) if random.random() < 0.15 else node
            if random.random() < 0.6:
                await session.read(random.choice(KEYS), node)
            else:
                key = KEYS[number] if random.random() < 0.8 else random.choice(KEYS)
                await session.write(key, number * operations + step, node)

    async def _alike(self) -> bool:
        if self.model in LOGS:
            return bool(await self._converged())
        await self._check()
        statuses = (await self.cluster.statuses()).values()
        return all(statuses) and len({repr(said and said["applied"]) for said in statuses}) == 1


async def _run(plan: Plan, model: str, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    environment = TIMERS | dict(plan.environment)
    spec = kv_cluster(plan.nodes, protocol=plan.protocol, environment=environment)
    async with SimulatedTestbed(directory) as testbed:
        with Recorder(directory / "history.jsonl", lambda: int(loop.time() * 1e9)) as recorder:
            async with testbed.cluster(spec, directory) as cluster:
                run = SessionsRun(plan, cluster, recorder)
                run.model = model
                await run.go()


def _slowed(plan: Plan) -> Plan:
    """Some nodes are far from each other all the time, or cut apart: else all hear all at once."""
    random = Random(f"slow {plan.seed}")
    names = [f"n{number}" for number in range(1, plan.nodes + 1)]
    pairs = [(a, b) for a in names for b in names if a != b]
    faults = tuple(
        Fault(QUIET_S, ACTIVE_S, "links", (), (pair,), fault)
        for pair in random.sample(pairs, random.randint(1, len(pairs) // 2))
        for fault in [random.choice((LinkFault("delay", time_ms=150.0), LinkFault("blackhole")))]
    )
    relay = ("KV_ANTI_ENTROPY_TICKS", random.choice(("0", "30")))
    environment = (*plan.environment, relay)
    return replace(plan, environment=environment, faults=(*faults, *plan.faults))


def play(model: str, seed: int) -> Found:
    """One seed at one level."""
    protocol = "raft" if model in LOGS else "causal"
    plan = _slowed(draw(seed, protocol, active_s=ACTIVE_S))
    with tempfile.TemporaryDirectory(prefix="faultline-levels-") as name:
        directory = Path(name)
        try:
            with asyncio.Runner(loop_factory=partial(new_loop, seed)) as runner:
                runner.run(_run(plan, model, directory))
        except TimedOut as error:
            return Found(model, seed, 0, {"converges": str(error)})
        whole = load(directory / "history.jsonl")
    finals = History([op for op in whole.ops if op.extra.get("final")])
    history = History([op for op in whole.ops if not op.extra.get("final")])
    names = list(GUARANTEES)
    promised = names[names.index(FIRST_KEPT[model]) :]
    broken: dict[str, str] = {}
    undecided = []
    for promise in promised:
        result = GUARANTEES[promise](finals if promise == "converges" else history)
        if result.valid == "unknown":
            undecided.append(promise)
        elif result.valid is False:
            assert result.counterexample is not None
            broken[promise] = " ".join(result.counterexample.sentences)
    if lost := _lost(history, finals):
        broken[LOST] = f"in the end {lost[0]}, though acknowledged: {lost[1]}"
    stronger, _ = NEXT.get(model, ("", 0))
    found_out = bool(stronger) and GUARANTEES[stronger](history).valid is False
    return Found(model, seed, len(history.ops), broken, tuple(undecided), found_out)


def _lost(history: History, finals: History) -> tuple[Op, Op] | None:
    """A final read of something older than an acknowledged write of its key, and that write."""
    return next(
        (
            (read, write)
            for read in finals.ops
            for write in history.ops
            if read.type == write.type == "ok"
            and (write.f, write.key) == ("write", read.key)
            and (read.version or 0) < (write.version or 0)
        ),
        None,
    )


def _play(work: tuple[str, int]) -> Found:
    return play(*work)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.levels", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", choices=list(MODELS), help="only this one")
    parser.add_argument("--runs", type=int, default=500, help="how many seeds, of each model")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    chosen = parser.parse_args(arguments)
    if chosen.runs < 1 or chosen.processes < 1:
        parser.error("--runs and --processes must be at least 1")
    failed = False
    seeds = range(chosen.seed, chosen.seed + chosen.runs)
    with multiprocessing.get_context("spawn").Pool(chosen.processes) as pool:
        for model in [chosen.model] if chosen.model else list(MODELS):
            began = time.monotonic()
            found = list(pool.imap(_play, [(model, seed) for seed in seeds], chunksize=5))
            failed = _tell(model, found, time.monotonic() - began) or failed
    return int(failed)


def _tell(model: str, found: list[Found], took_s: float) -> bool:
    """A line for the level; True if it broke something, or was not found out soon enough."""
    bad = [each for each in found if each.broken]
    out = [each.seed for each in found if each.found_out]
    stronger, within = NEXT.get(model, ("", 0))
    late = (
        bool(stronger) and len(found) >= within and not any(s < found[0].seed + within for s in out)
    )
    undecided = sum(bool(each.undecided) for each in found)
    operations = sum(each.operations for each in found)
    print(
        f"{model}: {len(found)} histories, {operations} operations, {len(bad)} broken, "
        f"{undecided} undecided; {took_s:.0f} s"
        + (
            f"; not {stronger}: {len(out)} of them, the first by seed {min(out, default='–')}"
            if stronger
            else ""
        ),
        flush=True,
    )
    for each in bad[:3]:
        print(f"  seed {each.seed}: {each.broken}\n  replay: {each.replay}")
    return bool(bad) or late


if __name__ == "__main__":
    sys.exit(main())
