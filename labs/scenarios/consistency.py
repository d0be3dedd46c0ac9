"""What lab-consistency does with one model: sessions that move while a node is cut off, and the
checkers' judgement of what they were told.

Under the cut `far` hears `near` at most, and `near` hears `home`. Each small scene below lets the
anomaly of some guarantee happen to who does not ask for it. It has its own keys and sessions, and
is played again until it took place: until what it needs was answered at `home` and `near`, what is
on its way to `far` is there, or is held back there, and `far` has answered whom it may not refuse
(that it is slow is not that it refuses).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from labs.harness.checkers import (
    Counterexample,
    Result,
    check_causal,
    check_convergence,
    check_linearizable,
    check_sequential,
    check_session,
)
from labs.harness.checkers.sequential import OPS_TOLD
from labs.harness.checkers.story import tell
from labs.harness.history import History, Op, load
from labs.harness.testbed.cluster import until
from labs.harness.workloads.sessions import Levels, Session, Sessions
from labs.harness.workloads.statistics import percentile

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

CHECK_WITHIN_S = 20.0
DEADLINE_MS = 400
SAMPLES = 6

# The strongest first. What "an effect without its cause" and the like are called is the checker's.
GUARANTEES: Mapping[str, Callable[[History], Result]] = {
    "linearizable": partial(check_linearizable, model="register", timeout_s=CHECK_WITHIN_S),
    "sequential": partial(check_sequential, timeout_s=CHECK_WITHIN_S),
    "causal": partial(check_causal, level="CCv"),
    "writes follow reads": partial(check_session, guarantee="wfr"),
    "monotonic writes": partial(check_session, guarantee="mw"),
    "monotonic reads": partial(check_session, guarantee="mr"),
    "read your writes": partial(check_session, guarantee="ryw"),
    "converges": check_convergence,
}


# The scene that is made for a guarantee; the checker looks there first.
SCENES = {
    "linearizable": "stale",
    "sequential": "buffering",
    "causal": "answer",
    "writes follow reads": "answer",
    "monotonic writes": "order",
}
# What people call what the checkers find.
ANOMALIES = {
    "WriteCOInitRead": "effect before its cause",
    "writes follow reads violation": "answer before its question",
    "monotonic writes violation": "own writes out of order",
    "monotonic reads violation": "back in time",
    "read your writes violation": "own write missing",
}


class Nodes(NamedTuple):
    """Who is who in the scenes."""

    home: str
    near: str
    far: str


class Play:
    """The scenes of one model."""

    def __init__(
        self, stage: Stage, sessions: Sessions, model: str, levels: Levels, nodes: Nodes
    ) -> None:
        self.stage, self.sessions, self.model, self.levels = stage, sessions, model, levels
        self.nodes = nodes
        self.keys: list[str] = []
        self._values = 0

    async def all(self) -> None:
        """Every scene.

        A node's writes are shown in their order (`protocols/causal`): one that waits for its cause
        would hold back what `near` writes after it, so that what may arrive goes first.
        """
        await self._play(self.answer)
        scenes = (self.stale, self.buffering, self.order, self.moving)
        await asyncio.gather(*(self._play(scene) for scene in scenes))

    async def _play(self, scene: Callable[[str, str, str], Awaitable[bool]]) -> None:
        name = scene.__name__

        async def took_place() -> bool:
            number = next(self.sessions.numbers)
            x, y = f"x{number}", f"y{number}"
            self.keys += [x, y]
            return await scene(f"{name} {number}", x, y)

        await self.stage.require(took_place, within_s=20, what=f"{self.model}: the scene {name}")

    def session(self, act: str) -> Session:
        return self.sessions.begin(self.levels, model=self.model, act=act)

    def value(self) -> int:
        self._values += 1
        return self._values

    # ------------------------------------------------------------------ scenes

    async def stale(self, act: str, x: str, _: str) -> bool:
        """Acknowledged at home, known at near; then another session reads at far."""
        wrote = await self.session(act).write(x, self.value(), self.nodes.home)
        if not wrote.ok or not await self._seen(x, self.nodes.near):
            return False
        read = await self.session(act).read(x, self.nodes.far)
        return read.ok or self.model == "linearizable"

    async def buffering(self, act: str, x: str, y: str) -> bool:
        """Two sessions on either side of the cut: each writes, then reads the other's key."""
        here, there = self.session(act), self.session(act)
        wrote = await asyncio.gather(here.write(x, self.value(), self.nodes.home),
                                     there.write(y, self.value(), self.nodes.far))  # fmt: skip
        read = await asyncio.gather(here.read(y, self.nodes.home), there.read(x, self.nodes.far))
        there_too = wrote[1].ok and read[1].ok
        return wrote[0].ok and read[0].ok and (there_too or has_log(self.stage))

    async def answer(self, act: str, question: str, answer: str) -> bool:
        """One asks at home, another reads that at near and answers there, a third reads at far."""
        asked = await self.session(act).write(question, self.value(), self.nodes.home)
        if not asked.ok or not await self._seen(question, self.nodes.near):
            return False
        other = self.session(act)
        read = await other.read(question, self.nodes.near)
        wrote = await other.write(answer, self.value(), self.nodes.near)
        return read.value is not None and wrote.ok and await self._at_far(act, answer, question)

    async def order(self, act: str, first: str, second: str) -> bool:
        """One session writes at home, moves, and writes at near; another reads at far."""
        writer = self.session(act)
        wrote = await writer.write(first, self.value(), self.nodes.home)
        if not wrote.ok or not await self._seen(first, self.nodes.near):
            return False
        then = await writer.write(second, self.value(), self.nodes.near)
        return then.ok and await self._at_far(act, second, first)

    async def moving(self, act: str, x: str, _: str) -> bool:
        """Writer and reader were at home, and move to far."""
        writer, reader = self.session(act), self.session(act)
        wrote = await writer.write(x, self.value(), self.nodes.home)
        read = await reader.read(x, self.nodes.home)
        moved = await asyncio.gather(
            writer.read(x, self.nodes.far), reader.read(x, self.nodes.far)
        )
        answered = all(each.ok for each in moved) or self.model != "eventual"
        return wrote.ok and read.value is not None and answered

    async def _at_far(self, act: str, effect: str, cause: str) -> bool:
        """A session that has seen nothing reads at far, once the effect is there or held back."""

        async def there() -> bool:
            held = self.stage.protocol_events(self.nodes.far, "hold_back")
            return any(event["key"] == effect for event in held) or await self._look(effect)

        if not has_log(self.stage):  # of a log nothing that is new can be there
            await until(there, 10, f"{effect} at {self.nodes.far}, or held back there")
        reader = self.session(act)
        read = [await reader.read(key, self.nodes.far) for key in (effect, cause)]
        return all(each.ok for each in read) or self.model == "linearizable"

    async def _look(self, key: str) -> bool:
        return await self.sessions.look(key, [self.nodes.far], LOOK)

    async def _seen(self, key: str, node: str) -> bool:
        return bool(await self.stage.eventually(
            lambda: self.sessions.look(key, [node], LOOK), within_s=10, what=f"{key} at {node}"
        ))  # fmt: skip


LOOK = Levels("eventual", None)


async def latencies(
    stage: Stage, sessions: Sessions, levels: Levels, nodes: Nodes
) -> dict[str, list[float]]:
    """What it took, in ms: a write, a read beside it, and the session's read of it elsewhere."""
    session = sessions.begin(levels, act="latency")
    took: dict[str, list[float]] = {"write": [], "read": [], "moved": []}

    async def sample() -> bool:
        steps = {
            "write": partial(session.write, "latency", next(sessions.numbers), nodes.home),
            "read": partial(session.read, "latency", nodes.home),
            "moved": partial(session.read, "latency", nodes.near),
        }
        for name, step in steps.items():
            began = stage.now_ns()
            if (await step()).ok:
                took[name].append((stage.now_ns() - began) / 1e6)
        return min(map(len, took.values())) >= SAMPLES

    await stage.require(sample, within_s=20, what=f"{SAMPLES} writes, read where they were and not")
    stage.figures(**{f"{name}_ms": percentile(times, 50) for name, times in took.items()})
    return took


async def final_reads(stage: Stage, sessions: Sessions, keys: list[str]) -> None:
    """Every key at every node, once they agree, by nobody's session."""

    async def alike() -> bool:
        statuses = (await stage.cluster.statuses()).values()
        return len({repr(said and said["applied"]) for said in statuses}) == 1

    if has_log(stage):
        await stage.converged(within_s=20)
    else:
        await stage.eventually(alike, within_s=20, what="all nodes have applied the same")
    for node in stage.cluster.nodes:
        for key in keys:
            reader = sessions.begin(LOOK, final=True)
            await reader.read(key, node)


def judge(stage: Stage, model: str) -> dict[str, Result]:
    """What each checker says of the model's history.

    A scene's keys are its own. That part of a history is not what the whole is said to be only if
    the whole is not (all of these models are closed under leaving out keys), and its
    counterexample is a short one; that it holds is for the whole history to say.
    """
    whole = load(stage.history_path)
    finals = [op for op in whole.ops if op.extra.get("final")]
    mine = [op for op in whole.ops if op.extra.get("model") == model]
    acts: dict[str, list[Op]] = {}
    for op in mine:
        acts.setdefault(op.extra["act"], []).append(op)
    found = {}
    for name, check in GUARANTEES.items():
        scene = SCENES.get(name, "moving")
        parts = sorted(acts.values(), key=lambda ops: not ops[0].extra["act"].startswith(scene))
        histories = [finals] if name == "converges" else [*parts, mine]
        verdicts = (_checked(check, History(ops, whole.nemesis)) for ops in histories)
        found[name] = next_broken(verdicts)
    return found


def _checked(check: Callable[[History], Result], history: History) -> Result:
    """A story across sessions is whole only with all that led to it; a scene is short enough."""
    result, ops = check(history), [op for op in history.ops if op.type == "ok"]
    short = result.counterexample
    if short is None or len({op.key for op in ops}) == 1 or len(ops) > OPS_TOLD:
        return result
    story = Counterexample(short.anomaly, short.summary, ops, None, short.forbidden, short.reason)
    return replace(result, counterexample=tell(history, story))


def has_log(stage: Stage) -> bool:
    """Is it a store in which one node leads?"""
    return stage.cluster.spec.nodes[0].environment["KV_PROTOCOL"] != "causal"


def next_broken(verdicts: Iterable[Result]) -> Result:
    """The first that says so, else the last."""
    for verdict in verdicts:
        if verdict.valid is False:
            break
    return verdict


def broken_as_it_must(result: Result) -> Result:
    """The same for a claim that says so: it holds when the checker found the anomaly."""
    return replace(result, valid="unknown" if result.valid == "unknown" else not result.valid)


def cell(result: Result) -> str:
    """Of the matrix: kept, or the anomaly's name."""
    if result.counterexample is not None:
        anomaly = result.counterexample.anomaly
        return ANOMALIES.get(anomaly, anomaly)
    return {True: "kept", "unknown": "?"}[result.valid]
