"""The nemesis: the one that injects faults, and proves them.

    nemesis = Nemesis(cluster, recorder, run_directory / "faults.jsonl", random=Random(seed))
    async with nemesis.partition("primaries") as cut:  # planned, then injected
        await cut.felt()                               # a probe on each cut link went unanswered
        ...
    # healed, and recovered: probes pass again, the cluster is ready

A fault that was not felt makes the run invalid: `nemesis.unfelt`. With `enabled=False` everything
is planned and nothing injected, which must come out as exactly that.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from labs.harness.links.fault import Link, LinkFault, StreamName
from labs.harness.nemesis import shapes
from labs.harness.nemesis.effects import ClockEffect, Effect, Feeling, ProcessEffect
from labs.harness.nemesis.link_effects import LinkEffect
from labs.harness.nemesis.plane import LinkPlane
from labs.harness.nemesis.scope import FaultRecord, NemesisError, Scope, healed
from labs.harness.nemesis.targets import pick

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path
    from random import Random

    from labs.harness.nemesis.plane import ClusterUnderTest
    from labs.harness.nemesis.shapes import Grudge, Node, Symmetry
    from labs.harness.nemesis.targets import Target

    LinkSpec = Link | tuple[str, str] | Iterable[Link | tuple[str, str]]
    Partition = str | Mapping[Node, Collection[Node]] | list[list[Node]]


class Recorder(Protocol):
    """What the nemesis needs of the history (`history.recorder.Recorder`)."""

    def now_ns(self) -> int: ...

    def nemesis(self, type: str, f: str, value: Any = None) -> None: ...  # noqa: A002 - its name


class Planned:
    """What the methods of `Nemesis` return: a plan, put into effect by `async with`."""

    def __init__(self, prepare: Callable[[], Awaitable[Scope]]) -> None:
        self._prepare = prepare
        self._scope: Scope | None = None

    async def __aenter__(self) -> Scope:
        assert self._scope is None, "a fault can be entered once"
        self._scope = await self._prepare()
        return await self._scope.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        assert self._scope is not None
        await self._scope.__aexit__(*error)


class Nemesis:
    """Injects faults into `cluster`; see the module.

    Args:
        recorder: writes the nemesis' operations into the history.
        faults_path: `faults.jsonl`; a line per phase with the whole record, the last one counts.
        random: draws targets and shapes.
        telemetry: called as `(phase, record)` after each phase has been written.
        enabled: False plans only.
    """

    def __init__(
        self,
        cluster: ClusterUnderTest,
        recorder: Recorder,
        faults_path: Path | str,
        *,
        random: Random,
        telemetry: Callable[[str, FaultRecord], None] | None = None,
        enabled: bool = True,
    ) -> None:
        self.cluster = cluster
        self.enabled = enabled
        self.records: list[FaultRecord] = []
        self.active: dict[int, Scope] = {}
        self.plane = LinkPlane(cluster)
        self._recorder = recorder
        self._random = random
        self._telemetry = telemetry
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(faults_path, flags, 0o644)

    # ------------------------------------------------------------------ what came of it

    @property
    def unfelt(self) -> list[FaultRecord]:
        """Faults that were looked for and not felt, or are over and nobody looked: invalid run."""
        over = {record.id for record in self.records} - self.active.keys()
        return [
            record
            for record in self.records
            if record.felt is False or (record.felt is None and record.id in over)
        ]

    @property
    def unrecovered(self) -> list[FaultRecord]:
        """Faults that were healed and from which the cluster did not recover in time."""
        return [record for record in self.records if record.recovered is False]

    def now_s(self) -> float:
        """Seconds since the run started."""
        return self._recorder.now_ns() / 1e9

    def note(self, phase: str, record: FaultRecord) -> None:
        """Write a phase: to the history, to `faults.jsonl`, and to the telemetry."""
        kind = "invoke" if phase == "planned" else "info"
        value: dict[str, Any] = {"id": record.id, "phase": phase, "target": record.target}
        if phase == "planned":
            value |= record.parameters
        elif phase in ("felt", "unfelt"):
            value["how"] = record.felt_how
        elif phase in ("recovered", "unrecovered"):
            value["how"] = record.recovered_how
        if record.error:
            value["error"] = record.error
        self._recorder.nemesis(kind, record.name, value)
        line = {"phase": phase, **msgspec.to_builtins(record)}
        os.write(self._file, msgspec.json.encode(line) + b"\n")
        if self._telemetry is not None:
            self._telemetry(phase, record)

    async def heal_all(self) -> None:
        """Undo whatever is still on, the latest first. Idempotent. Raises NemesisError at the end.

        One that fails does not keep the others from being healed.
        """
        await healed(self._heal_all())

    def close(self) -> None:
        """Close `faults.jsonl`. Idempotent; heals nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    async def ready(self, how: str, within_s: float) -> Feeling:
        """The cluster is ready, unless another fault that is still on keeps it from that."""
        if self.active:
            return Feeling(True, f"{how}; another fault is still on")
        running = self.plane.running()
        await self.cluster.ready(within_s, running)
        return Feeling(True, f"{how}; {self._count(running)} ready")

    def _count(self, running: list[str]) -> str:
        nodes = f"{sum(each in self.cluster.nodes for each in running)} nodes"
        return ", ".join([nodes, *(each for each in running if each in self.cluster.members)])

    # ------------------------------------------------------------------ faults on links

    def partition(
        self,
        shape: Partition,
        *,
        symmetry: Symmetry = "symmetric",
        clients: Mapping[str, Target] | None = None,
    ) -> Planned:
        """Cut groups of nodes apart: a shape's name, a grudge, or groups of nodes.

        Groups and grudges may name members too: `[["n1", "redis"], ["n2", "n3"]]` leaves Redis to
        n1. Named shapes are of the nodes alone; a member that no side names is reached by all.
        `clients` puts client groups beside nodes (a name, several, or a node spec such as
        "primaries"): what those nodes cannot reach, they cannot. Others still reach everyone.
        """

        async def prepare() -> Scope:
            grudge = await self._grudge(shape, symmetry)
            places = {client: await self._pick(place) for client, place in (clients or {}).items()}
            if unknown := sorted(places.keys() - set(self.cluster.clients)):
                raise shapes.ShapeError(f"no such client group: {', '.join(unknown)}")
            grudge = shapes.place_clients(grudge, places)
            known = set(self.cluster.links)
            cut = [link for link in shapes.cut_links(grudge) if link in known]
            target = shapes.describe(grudge, self._cut_servers(grudge), list(places), known)
            words = shape if isinstance(shape, str) else "custom"
            extra: dict[str, Any] = {"shape": words, "symmetry": symmetry}
            extra["grudge"] = {node: sorted(refused) for node, refused in grudge.items()}
            return self._on_links("partition", target, cut, LinkFault("blackhole"), **extra)

        return Planned(prepare)

    def drop(self, link: LinkSpec, *, stream: StreamName | None = None) -> Planned:
        """Nothing arrives on one stream (None: both). `response`: requests still take effect."""
        return self._planned_links("drop", link, LinkFault("drop", stream))

    def blackhole(self, link: LinkSpec, *, stream: StreamName | None = None) -> Planned:
        """Accepted, then silence: callers see nothing until their deadline."""
        return self._planned_links("blackhole", link, LinkFault("blackhole", stream))

    def clog(self, link: LinkSpec, *, stream: StreamName | None = None) -> Planned:
        """Hold what is sent, deliver it later, in order."""
        return self._planned_links("clog", link, LinkFault("clog", stream))

    def delay(
        self,
        link: LinkSpec,
        *,
        time_ms: float,
        jitter_ms: float = 0,
        stream: StreamName | None = None,
    ) -> Planned:
        """`time_ms` ± `jitter_ms` later, on each stream (both: a round trip takes twice that)."""
        fault = LinkFault("delay", stream, time_ms=time_ms, jitter_ms=jitter_ms)
        return self._planned_links("delay", link, fault)

    def rate(
        self, link: LinkSpec, *, rate_kbit: float, stream: StreamName | None = None
    ) -> Planned:
        """At most `rate_kbit` on each stream of each link."""
        return self._planned_links("rate", link, LinkFault("rate", stream, rate_kbit=rate_kbit))

    def refuse(self, link: LinkSpec) -> Planned:
        """Open connections are reset, new ones refused."""
        return self._planned_links("refuse", link, LinkFault("refuse"))

    def reset(self, link: LinkSpec) -> Planned:
        """Open connections are reset, new ones once they have sent something."""
        return self._planned_links("reset", link, LinkFault("reset"))

    # ------------------------------------------------------------------ faults of nodes
    # `kill`, `pause` and `wipe` take members' names too; their clocks are not ours to set.

    def kill(self, target: Target = "one") -> Planned:
        """SIGKILL; leaving the scope starts them again."""
        return self._planned_processes("kill", target)

    def pause(self, target: Target = "one") -> Planned:
        """SIGSTOP; leaving the scope resumes them."""
        return self._planned_processes("pause", target)

    def wipe(self, target: Target = "one") -> Planned:
        """Kill what still runs, remove the data (no inverse); leaving starts what this killed."""
        return self._planned_processes("wipe", target)

    def bump(self, target: Target = "one", *, delta_ms: float) -> Planned:
        """Step the service's clock by `delta_ms`; leaving the scope sets it back."""
        return self._planned_nodes(
            target, lambda nodes: ClockEffect(self.plane, nodes, delta_ms=delta_ms)
        )

    def drift(self, target: Target = "one", *, rate: float) -> Planned:
        """Run the service's clock at `rate` (1.05: five percent fast), until the scope is left."""
        return self._planned_nodes(target, lambda nodes: ClockEffect(self.plane, nodes, rate=rate))

    # ------------------------------------------------------------------ planning

    def _planned_links(self, name: str, spec: LinkSpec, fault: LinkFault) -> Planned:
        async def prepare() -> Scope:
            links = self._links(spec)
            return self._on_links(name, ", ".join(map(str, links)), links, fault)

        return Planned(prepare)

    def _planned_nodes(self, spec: Target, effect: Callable[[list[Node]], Effect]) -> Planned:
        async def prepare() -> Scope:
            return self._plan(effect(await self._pick(spec)))

        return Planned(prepare)

    def _planned_processes(self, name: str, spec: Target) -> Planned:
        async def prepare() -> Scope:
            servers = await self._pick(spec, self.cluster.members)
            return self._plan(ProcessEffect(self.plane, name, servers))

        return Planned(prepare)

    def _on_links(
        self, name: str, target: str, links: list[Link], fault: LinkFault, **extra: Any
    ) -> Scope:
        owner = len(self.records) + 1
        effect = LinkEffect(self.plane, owner, self.now_s, name, target, links, fault)
        effect.parameters |= extra
        return self._plan(effect)

    def _plan(self, effect: Effect) -> Scope:
        record = FaultRecord(
            id=len(self.records) + 1,
            name=effect.name,
            target=effect.target,
            parameters=effect.parameters,
            planned_at=self.now_s(),
        )
        self.records.append(record)
        return Scope(self, effect, record)

    def _links(self, spec: LinkSpec) -> list[Link]:
        """One link (a Link, or a pair of names), or several."""
        listed: list[Any] = list(spec)
        if len(listed) == 2 and all(isinstance(name, str) for name in listed):
            listed = [listed]
        links = [Link(*each) for each in listed]
        known = set(self.cluster.links)
        if unknown := [str(link) for link in links if link not in known]:
            raise shapes.ShapeError(f"no such link: {', '.join(unknown)}")
        if not links:
            raise shapes.ShapeError("no link is named")
        return list(dict.fromkeys(links))

    async def _grudge(self, shape: Partition, symmetry: Symmetry) -> Grudge:
        nodes = list(self.cluster.nodes)
        if isinstance(shape, str):
            if shape == "primaries":
                return shapes.primaries(nodes, await self._leading(), symmetry=symmetry)
            if shape not in shapes.SHAPES:
                known = ", ".join([*shapes.SHAPES, "primaries"])
                raise shapes.ShapeError(f"unknown shape {shape!r}; one of {known}")
            return shapes.SHAPES[shape](nodes, self._random, symmetry=symmetry)
        if isinstance(shape, list):
            shape = shapes.complete_grudge(shape, symmetry=symmetry)
        return shapes.check_grudge(shape, [*nodes, *self.cluster.members])

    def _cut_servers(self, grudge: Grudge) -> list[Node]:
        """The nodes, and the members that the grudge speaks of."""
        spoken_of = {*grudge, *(src for refused in grudge.values() for src in refused)}
        return [*self.cluster.nodes, *(m for m in self.cluster.members if m in spoken_of)]

    async def _pick(self, spec: Target, members: Sequence[str] = ()) -> list[Node]:
        nodes = list(self.cluster.nodes)
        leading = await self._leading() if spec in ("primaries", "followers") else ()
        return pick(spec, nodes, self._random, leading=leading, members=members)

    async def _leading(self) -> list[Node]:
        return await self.cluster.primaries()

    async def _heal_all(self) -> None:
        errors = []
        for scope in reversed(list(self.active.values())):
            try:
                await scope.heal()
            except NemesisError as error:
                errors.append(str(error))
        if errors:
            raise NemesisError("; ".join(errors))
