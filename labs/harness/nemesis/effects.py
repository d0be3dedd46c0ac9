"""What faults of nodes do, how each is felt, and how it is undone.

`link_effects.py` has those of links; `scope.py` says when.

An effect never decides that it was felt because a command succeeded: it asks through the links, or
the operating system, or the node, and reports what it saw (maelstrom#44: a solution that ignored
partitions still passed).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from labs.harness.nemesis import probe
from labs.harness.nemesis.shapes import Node

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from labs.harness.nemesis.plane import LinkPlane

CLOCK_TOLERANCE_MS = 5.0
CLOCK_WITHIN_S = 10.0


class Feeling(NamedTuple):
    """Whether what was to be seen was seen, and what was, in words for a reader."""

    seen: bool
    how: str


class Effect(Protocol):
    """One fault: what it hits (`target`, readable), and its four steps."""

    name: str
    target: str
    parameters: dict[str, Any]

    async def inject(self) -> None: ...
    async def feel(self, within_s: float) -> Feeling: ...
    async def heal(self) -> None: ...
    async def recover(self, within_s: float) -> Feeling: ...


class ProcessEffect:
    """`kill` (inverse: start), `pause` (inverse: resume) or `wipe` of some nodes or members.

    `wipe` kills first what still runs, and starts again only that; its data stay lost.
    """

    def __init__(self, plane: LinkPlane, name: str, nodes: Sequence[Node]) -> None:
        assert name in ("kill", "pause", "wipe"), name
        self.name = name
        self.target = " ".join(nodes)
        self.parameters: dict[str, Any] = {"nodes": list(nodes)}
        self._plane = plane
        self._nodes = list(nodes)
        self._hit: list[Node] = []

    async def inject(self) -> None:
        cluster = self._plane.cluster
        self._hit = [node for node in self._nodes if cluster.state(node) != "stopped"]
        act = cluster.pause if self.name == "pause" else cluster.kill
        await _all(act, self._hit)
        if self.name == "wipe":
            await _all(cluster.wipe, self._nodes)  # raises when the data are still there

    async def heal(self) -> None:
        cluster = self._plane.cluster
        if self.name == "pause":
            await _all(cluster.resume, [n for n in self._hit if cluster.state(n) == "paused"])
        else:
            await _all(cluster.start, [n for n in self._hit if cluster.state(n) == "stopped"])

    async def feel(self, within_s: float) -> Feeling:
        wanted = "paused" if self.name == "pause" else "stopped"
        states = {node: self._plane.cluster.state(node) for node in self._nodes}
        if others := [f"{node} {state}" for node, state in states.items() if state != wanted]:
            return Feeling(False, f"not {wanted}: {some(others)}")
        suspects = {self._plane.direct_way(node): node for node in self._nodes}
        intact = self._plane.direct(self._plane.running())
        if self.name == "pause":
            found = await probe.silence_round(list(suspects), intact, within_s)
            saw: probe.Saw = "silent"
        else:
            found = await probe.ended_round(list(suspects), within_s)
            saw = "refused"
        if trouble := not_as(found.suspects, suspects, *self._plane.seen_as(saw)):
            return Feeling(False, f"{wanted}, but not {saw}: {trouble}")
        if self.name == "wipe":
            wanted += ", its data gone"
        return Feeling(True, f"{self.target}: {wanted}; probes {saw}")

    async def recover(self, within_s: float) -> Feeling:
        down = [node for node in self._hit if self._plane.cluster.state(node) != "running"]
        if down:
            return Feeling(False, f"not running: {some(down)}")
        return Feeling(True, f"{self.target} runs again")


class ClockEffect:
    """`bump` (step by `delta_ms`) or `drift` (run at `rate`) of the clocks of some nodes."""

    def __init__(
        self,
        plane: LinkPlane,
        nodes: Sequence[Node],
        *,
        delta_ms: float = 0.0,
        rate: float | None = None,
    ) -> None:
        self.name = "bump" if rate is None else "drift"
        self.target = " ".join(nodes)
        self.parameters: dict[str, Any] = {"nodes": list(nodes)}
        self.parameters |= {"delta_ms": delta_ms} if rate is None else {"rate": rate}
        self._plane = plane
        self._nodes = list(nodes)
        self._delta_ms = delta_ms
        self._rate = rate
        self._before: dict[Node, dict[str, float]] = {}

    async def inject(self) -> None:
        self._before = {node: await self._clock(node) for node in self._nodes}
        for node, clock in self._before.items():
            await self._plane.cluster.set_clock(
                node,
                offset_ms=clock["offset_ms"] + self._delta_ms,
                rate=clock["rate"] if self._rate is None else self._rate,
            )

    async def heal(self) -> None:
        """`reset_clock`: to what it was. A node that has died meanwhile restarts with true time."""
        running = self._plane.running()
        for node, clock in self._before.items():
            if node in running:
                await self._plane.cluster.set_clock(node, clock["offset_ms"], clock["rate"])

    async def feel(self, within_s: float) -> Feeling:
        words = []
        for node, before in self._before.items():
            clock = await self._clock(node, within_s)
            words.append(f"{node} {clock['offset_ms']:+.0f} ms at rate {clock['rate']:g}")
            if self._rate is not None and clock["rate"] != self._rate:
                return Feeling(False, f"{words[-1]}, wanted was rate {self._rate:g}")
            # Without drift, the step must be there to the millisecond; a drift adds to it.
            off_ms = abs(clock["offset_ms"] - before["offset_ms"] - self._delta_ms)
            if self._rate is None and clock["rate"] == 1.0 and off_ms > CLOCK_TOLERANCE_MS:
                return Feeling(False, f"{words[-1]}, wanted was a step of {self._delta_ms:g} ms")
        return Feeling(bool(words), f"clocks: {some(words)}")

    async def recover(self, within_s: float) -> Feeling:
        running = self._plane.running()
        for node in [each for each in self._before if each in running]:
            clock = await self._clock(node, within_s)
            if clock["rate"] != self._before[node]["rate"]:
                return Feeling(False, f"{node} still runs at rate {clock['rate']:g}")
        return Feeling(True, "clocks set back")

    async def _clock(self, node: Node, within_s: float = CLOCK_WITHIN_S) -> dict[str, float]:
        """Raises LookupError when the node does not tell in time."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            status = await self._plane.cluster.status(node)
            if status is not None and "clock" in status:
                return dict(status["clock"])
            if asyncio.get_running_loop().time() >= deadline:
                raise LookupError(f"{node} does not tell its clock within {within_s:g} s")
            await asyncio.sleep(probe.RETRY_S)


async def _all(act: Callable[[Node], Awaitable[None]], nodes: Sequence[Node]) -> None:
    """Act on every node, whatever becomes of the others; then raise the first error."""
    done = await asyncio.gather(*(act(node) for node in nodes), return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result


def not_as(
    found: Mapping[probe.Way, Sequence[probe.Seen]],
    names: Mapping[probe.Way, object],
    *wanted: probe.Saw,
) -> str:
    """Which of `found` did not see what was wanted; empty if all did."""
    return some(
        f"{names[where]} {one.saw}"
        for where, seen in found.items()
        for one in seen
        if one.saw not in wanted
    )


def some(words: Iterable[object], most: int = 6) -> str:
    listed = [str(word) for word in words]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
