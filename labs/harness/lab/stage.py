"""What a scenario works with: a started cluster, the nemesis, the load, and the claims it makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Protocol, TypeVar, overload

from labs.harness.checkers import Counterexample, Result
from labs.harness.history import Recorder
from labs.harness.lab.directory import read_lines
from labs.harness.lab.story import Story
from labs.harness.lab.verdict import Claim, Shown, VariantResult
from labs.harness.nemesis import Nemesis
from labs.harness.nemesis.nemesis import Planned
from labs.harness.testbed.cluster import Cluster, TimedOut, applied_alike, leads, until

T = TypeVar("T")


class Workload(Protocol):
    """Something that runs beside the scenario. `lateness_s`: how far it fell behind its plan."""

    @property
    def lateness_s(self) -> float: ...
    async def start(
        self, cluster: Cluster, recorder: Recorder, on_progress: Callable[[str], None]
    ) -> None: ...
    async def stop(self) -> None: ...


class InvalidRun(Exception):
    """The experiment can't be trusted: a fault was not felt, or what it needs never came about."""


class Stage:
    """One variant on its substrate, from the first node's start to its last claim.

    `random` is seeded from the run's seed: the same for every variant, so that all of them get the
    same load and the same choices. Times are seconds since the variant's recorder started.

    `together`: the stages of all variants that share the cluster (of a lab that says so), this one
    among them. Load, faults and waits are whoever's; figures and claims are each one's own.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        recorder: Recorder,
        nemesis: Nemesis,
        story: Story,
        result: VariantResult,
        directory: Path,
        seed: int,
    ) -> None:
        self.cluster = cluster
        self.recorder = recorder
        self.nemesis = nemesis
        self.story = story
        self.result = result
        self.directory = directory
        self.seed = seed
        self.random = Random(seed)
        self.together: tuple[Stage, ...] = (self,)

    @property
    def history_path(self) -> Path:
        return self.directory / "history.jsonl"

    def now_ns(self) -> int:
        """Nanoseconds on the clock of the history."""
        return self.recorder.now_ns()

    def tell(self, text: str) -> None:
        self.story.tell(text)

    def claim(
        self, text: str, holds: bool | Result, evidence: str, *, control_breaks: bool = False
    ) -> None:
        """Decide one claim; it is told at once and kept for the verdict.

        A checker's result decides by its `valid` ("unknown" leaves the claim undecided), and its
        counterexample is told with the claim.
        """
        story: list[str] = []
        shown: Shown | None = None
        decided: bool | None
        if isinstance(holds, Result):
            decided = None if holds.valid == "unknown" else holds.valid
            if holds.counterexample is not None:
                story = holds.counterexample.sentences
                shown = _shown(holds.counterexample)
                evidence = f"{evidence}: {holds.counterexample.anomaly}"
        else:
            decided = holds
        claim = Claim(text, decided, evidence, control_breaks, story, shown)
        self.result.claims.append(claim)
        self.story.claim(claim, self.result.expected)

    def needs(self, text: str, what: str) -> None:
        """Name a claim that can't be decided here, for want of `what` ("Apache Kafka").

        It is told and kept as undecided; the verdict is that of the other claims, and says so.
        """
        claim = Claim(text, None, f"not decided: needs {what}", needs=what)
        self.result.claims.append(claim)
        self.story.claim(claim, self.result.expected)

    def figures(self, **figures: Any) -> None:
        """Keep measured figures for the comparison table and the answer."""
        self.result.figures.update(figures)

    @overload
    async def eventually(
        self, condition: Callable[[], Awaitable[T]], *, within_s: float, what: str
    ) -> T | None: ...
    @overload
    async def eventually(
        self, condition: Callable[[], T], *, within_s: float, what: str
    ) -> T | None: ...
    async def eventually(self, condition: Callable[[], Any], *, within_s: float, what: str) -> Any:
        """The condition's value once truthy, or None: for what the *system* may fail to do."""
        try:
            return await until(condition, within_s, what)
        except TimedOut as timed_out:
            self.tell(f"not seen: {timed_out}")
            return None

    @overload
    async def require(
        self, condition: Callable[[], Awaitable[T | None]], *, within_s: float, what: str
    ) -> T: ...
    @overload
    async def require(
        self, condition: Callable[[], T | None], *, within_s: float, what: str
    ) -> T: ...
    async def require(self, condition: Callable[[], Any], *, within_s: float, what: str) -> Any:
        """As `eventually`, for what the *experiment* needs: without it the run is invalid."""
        try:
            return await until(condition, within_s, what)
        except TimedOut as timed_out:
            raise InvalidRun(str(timed_out)) from timed_out

    async def primary(self, *, within_s: float = 30) -> str:
        """The one node that leads, once there is exactly one and it is ready for writes."""

        async def alone() -> list[str]:
            primaries = await self.cluster.primaries()
            return primaries if len(primaries) == 1 else []

        return (await self.require(alone, within_s=within_s, what="exactly one node leads"))[0]

    async def leading(self, among: Collection[str], *, within_s: float = 10) -> list[str]:
        """Which of these nodes lead, once one does; empty when none does in time.

        Not what one look finds: on a busy machine a leader may be too late for it.
        """

        async def some() -> list[str]:
            return [node for node in await self.cluster.primaries() if node in among]

        return await self.eventually(some, within_s=within_s, what="one of them leads") or []

    async def followed(self, *, within_s: float = 30) -> str:
        """The one node that leads, once all have acknowledged to it what it had when first seen.

        A node that merely *names* a leader may have heard of it from others, right after a heal,
        and be about to stand for election for want of a word from the leader itself. (Of protocols
        whose leader tells a `match_index` of its peers: Raft, primary-backup.)
        """
        had: dict[tuple[str, int], int] = {}

        async def by_all() -> str:
            found = {n: said for n, said in (await self.cluster.statuses()).items() if said}
            leading = [node for node, said in found.items() if leads(said)]
            if len(leading) != 1:
                return ""
            said = found[leading[0]]
            first = had.setdefault((leading[0], said["term"]), said["last_index"])
            matched = [peer["match_index"] for peer in said["peers"].values()]
            return leading[0] if min(matched, default=first) >= first else ""

        return await self.require(by_all, within_s=within_s, what="one node leads, and all follow")

    async def gave_up(self, node: str, leader: str) -> bool:
        """Does `node` say that it no longer follows `leader`?"""
        status = await self.cluster.status(node)
        return status is not None and status["leader"] != leader

    def protocol_events(self, node: str, *names: str, since_ns: int = 0) -> list[dict[str, Any]]:
        """What `node` itself told of these steps of its protocol, from `since_ns` on.

        `at_ns` in each of them: when, on the clock of the history.
        """
        start_ns = self.recorder.start_ns  # the nodes' telemetry has the machine's own clock
        told = [
            {**event, "at_ns": event["monotonic_ns"] - start_ns}
            for event in read_lines(self.cluster.telemetry(node))
            if event["event"] in names
        ]
        return [event for event in told if event["at_ns"] >= since_ns]

    async def converged(self, *, within_s: float) -> None:
        """Wait until one node leads and all have applied what it has.

        What must be equal is what is applied. A follower's log may go on beyond: in Paxos with
        what it accepted in a ballot that came to nothing, until a later command takes that slot.
        Nodes that have applied the same log and hold different states are told as a broken claim.
        """

        async def level() -> dict[str, str]:
            return applied_alike(await self.cluster.statuses())

        states = await self.require(
            level, within_s=within_s, what="every node has applied what the leader has"
        )
        if len(set(states.values())) > 1:
            held = ", ".join(f"{node}: {digest}" for node, digest in states.items())
            self.claim("Nodes that have applied the same log hold the same state", False, held)

    @asynccontextmanager
    async def running(self, *workloads: Workload) -> AsyncIterator[None]:
        """Keep the workloads running; they stop together, also when the scenario fails.

        One after another they would not: a spike at three places went on at the last of them until
        the callers of the first two had given up.
        """
        started: list[Workload] = []
        try:
            for workload in workloads:
                await workload.start(self.cluster, self.recorder, self.story.progress)
                started.append(workload)
            yield
        finally:
            self.story.pause()
            stops = (workload.stop() for workload in started)
            for outcome in await asyncio.gather(*stops, return_exceptions=True):
                if outcome is not None:
                    raise outcome
        late_ms = max(workload.lateness_s for workload in workloads) * 1000
        for stage in self.together:
            stage.figures(load_late_ms=round(late_ms, 1))

    @asynccontextmanager
    async def fault(self, planned: Planned, text: str) -> AsyncIterator[int]:
        """Strike, and go on only once the fault has been felt; heal and recover on the way out.

        Gives the instant (ns) from which on the fault was in effect.
        """
        async with planned as scope:
            self.story.fault(text)
            felt = await scope.felt()
            if not felt:
                raise InvalidRun(f"{text}: not felt: {scope.record.felt_how}")
            self.story.tell(f"felt: {scope.record.felt_how}")
            assert scope.record.injected_at is not None, "what was felt was injected"
            yield int(scope.record.injected_at * 1e9)
        record = scope.record
        if not record.recovered:
            raise InvalidRun(f"{text}: healed, but not recovered: {record.recovered_how}")
        self.story.healed(f"healed, and recovered: {record.recovered_how}")


def _shown(found: Counterexample) -> Shown:
    return Shown(
        found.anomaly, found.summary, [op.index for op in found.ops], found.key, found.forbidden
    )
