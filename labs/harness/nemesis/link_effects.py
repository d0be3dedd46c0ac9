"""What faults of links do, and how callers see them: silence, refusal, reset, slowness."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from labs.harness.links.fault import HOLDING, Link, LinkFault
from labs.harness.nemesis import probe
from labs.harness.nemesis.effects import Feeling, not_as, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence, Sized

    from labs.harness.links.control import LinkStats
    from labs.harness.nemesis.plane import LinkPlane

# Padding that a limited link needs about this long for; less would drown in the noise of a host.
RATE_PROBE_S = 0.04
RATE_PROBE_REQUESTS = 200
MAX_INTACT = 100
# Seen at least: the clock of a proxy, the granularity of timers.
TOLERANCE = 0.9


class LinkEffect:
    """One `fault` on some links. `owner` is its id in the plane; `now_s` gives the run's time."""

    def __init__(
        self,
        plane: LinkPlane,
        owner: int,
        now_s: Callable[[], float],
        name: str,
        target: str,
        links: Sequence[Link],
        fault: LinkFault,
    ) -> None:
        self.name = name
        self.target = target
        self.parameters: dict[str, Any] = {
            "links": [f"{link.src}→{link.dst}" for link in links],
            "fault": str(fault),
        }
        self._plane = plane
        self._owner = owner
        self._now_s = now_s
        self._links = list(links)
        self._fault = fault
        self._before: dict[Link, LinkStats] = {}
        self._probe_bytes: dict[Link, int] = {}

    async def inject(self) -> None:
        self._before = await self._plane.cluster.link_control.stats()
        await self._plane.put(self._owner, dict.fromkeys(self._links, self._fault))

    async def heal(self) -> None:
        await self._plane.take(self._owner)

    async def feel(self, within_s: float) -> Feeling:
        suspects = {
            self._plane.way(link): link
            for link in self._links
            if self._plane.rules(self._owner, link)
        }
        if not suspects:
            return Feeling(False, "a later fault covers all of its links")
        if self._fault.kind in HOLDING:
            return await self._feel_silence(suspects, within_s)
        if self._fault.kind in ("refuse", "reset"):
            return await self._feel_ends(suspects, within_s)
        return await self._feel_slowness(suspects, within_s)

    async def recover(self, within_s: float) -> Feeling:
        intact = self._plane.intact_links()
        mine = {way: link for way, link in intact.items() if link in self._links}
        seen = await probe.answers(mine, within_s)
        mute = [f"{mine[where]} {one.saw}" for where, one in seen.items() if one.saw != "answered"]
        if mute:
            return Feeling(False, f"still not intact: {some(mute)}")
        answer = "answers" if len(seen) == 1 else "answer"
        return Feeling(True, f"{_links(seen)} {answer} again")

    async def _feel_silence(self, suspects: dict[probe.Way, Link], within_s: float) -> Feeling:
        destinations = dict.fromkeys(link.dst for link in suspects.values())
        links = self._plane.intact_links()
        # In a large cluster every k-th will do; the ways round the links to what is cut, all.
        every = 1 + len(links) // MAX_INTACT
        intact: dict[probe.Way, object] = {
            **dict(list(links.items())[::every]),
            **self._plane.direct(destinations),
        }
        waited = await self._waiting_bytes(suspects.values())
        waves = 2 if len(suspects) <= MAX_INTACT else 1
        found = await probe.silence_round(list(suspects), intact, within_s, waves=waves)
        total = 0
        for way, seen in found.suspects.items():
            total += len(seen)
            link = suspects[way]
            sent = self._probe_bytes.get(link, 0)
            self._probe_bytes[link] = sent + way.probe_bytes * len(seen)
        if trouble := not_as(found.suspects, suspects, "silent"):
            return Feeling(False, f"not cut: {trouble}")
        if trouble := not_as({a: [s] for a, s in found.intact.items()}, intact, "answered"):
            return Feeling(False, f"hit beyond its target, or a node is down: {trouble}")
        if trouble := await self._leaked(suspects.values()):
            return Feeling(False, f"bytes crossed the cut: {trouble}")
        if trouble := await self._not_held(suspects.values()):
            return Feeling(False, f"the node is silent itself, and nothing waits: {trouble}")
        latency_ms = max((one.latency_s for one in found.intact.values()), default=0) * 1000
        return Feeling(
            True,
            f"{total} of {total} probes on {_links(suspects)} unanswered {self._span(found)}, "
            f"{_size(waited)} of real traffic held; "
            f"all {len(found.intact)} other ways answered within {latency_ms:.0f} ms",
        )

    async def _feel_ends(self, suspects: dict[probe.Way, Link], within_s: float) -> Feeling:
        wanted: probe.Saw = "refused" if self._fault.kind == "refuse" else "reset"
        found = await probe.ended_round(list(suspects), within_s)
        if trouble := not_as(found.suspects, suspects, *self._plane.seen_as(wanted)):
            return Feeling(False, f"not {wanted}: {trouble}")
        intact = self._plane.intact_links()
        others = await probe.answers(intact, within_s)
        if trouble := not_as({a: [s] for a, s in others.items()}, intact, "answered"):
            return Feeling(False, f"hit beyond its target, or a node is down: {trouble}")
        return Feeling(
            True,
            f"{len(suspects)} of {len(suspects)} probes {wanted} "
            f"{self._span(found)}; all {len(others)} other ways answered",
        )

    async def _feel_slowness(self, suspects: dict[probe.Way, Link], within_s: float) -> Feeling:
        """Slower by what was asked for than the way round the links, in the same conditions."""
        running = set(self._plane.running())
        asked = {where: link for where, link in suspects.items() if link.dst in running}
        if not asked:
            return Feeling(False, "no node behind these links can answer")
        deadline = asyncio.get_running_loop().time() + within_s
        feelings = await asyncio.gather(
            *(self._feel_slow_link(where, link, deadline) for where, link in asked.items())
        )
        slow = [one.how for one in feelings if not one.seen]
        if slow:
            return Feeling(False, f"not slowed: {some(slow)}")
        return Feeling(True, f"{self.target}: {some([one.how for one in feelings])}")

    async def _feel_slow_link(self, way: probe.Way, link: Link, deadline: float) -> Feeling:
        loop = asyncio.get_running_loop()
        direct = self._plane.direct_way(link.dst)
        best_ms = direct_ms = least_ms = float("inf")
        while True:
            for where in (direct, way):
                one = self._slow_probe(where)
                try:
                    async with asyncio.timeout_at(deadline):
                        await one.ended.wait()
                except TimeoutError:
                    return Feeling(False, f"{link} answered nothing at all in time")
                finally:
                    one.close()
                seen = one.seen()
                if seen.saw != "answered":
                    return Feeling(False, f"{link} {seen.saw}")
                if where == direct:
                    direct_ms = min(direct_ms, seen.latency_s * 1000)
                else:
                    best_ms = min(best_ms, seen.latency_s * 1000)
                    least_ms = min(least_ms, self._least_ms(one.sent, seen.received))
            words = f"{link} {best_ms:.0f} ms (round the link {direct_ms:.0f} ms)"
            if best_ms < least_ms:
                return Feeling(False, f"{words}, {least_ms:.0f} ms were to be expected")
            if best_ms >= direct_ms + least_ms / 2:
                return Feeling(True, words)
            if loop.time() >= deadline:
                return Feeling(False, f"{words}: the machine itself is as slow as that")

    def _slow_probe(self, way: probe.Way) -> probe.Probe:
        if self._fault.kind == "delay":
            return probe.Probe(way)
        wanted = self._fault.rate_kbit * 1000 / 8 * RATE_PROBE_S
        requests = min(RATE_PROBE_REQUESTS, 1 + int(wanted / probe.PADDING_BYTES))
        return probe.Probe(way, requests=requests, padding=probe.PADDING_BYTES)

    def _least_ms(self, sent: int, received: int) -> float:
        fault = self._fault
        if fault.kind == "delay":
            streams = 1 if fault.stream else 2
            return streams * (fault.time_ms - fault.jitter_ms) * TOLERANCE
        size = {"request": sent, "response": received}.get(fault.stream or "", max(sent, received))
        return size * 8 / fault.rate_kbit * TOLERANCE

    async def _waiting_bytes(self, links: Iterable[Link]) -> int:
        """Bytes of the services, not of the probes, that had or have to wait on the cut links."""
        stats = await self._plane.cluster.link_control.stats()
        waited = 0
        for link in links:
            now, before = stats.get(link), self._before.get(link)
            if now is None or before is None:
                continue
            mine = now.request.held + now.response.held
            mine += now.request.abandoned - before.request.abandoned
            waited += max(0, mine - self._probe_bytes.get(link, 0))
        return waited

    async def _leaked(self, links: Iterable[Link]) -> str:
        stats = await self._plane.cluster.link_control.stats()
        leaks = []
        for link in links:
            for name in ("request", "response"):
                passed = getattr(stats[link], name).passed_during_fault
                if passed and self._fault.on("request" if name == "request" else "response"):
                    leaks.append(f"{link} {passed} B")
        return some(leaks)

    async def _not_held(self, links: Iterable[Link]) -> str:
        """Links to nodes that would not answer anyway, and on which no probe's bytes wait."""
        running = set(self._plane.running())
        mute = [link for link in links if link.dst not in running and self._fault.on("request")]
        if not mute:
            return ""
        stats = await self._plane.cluster.link_control.stats()
        return some(
            link
            for link in mute
            if stats[link].request.held + stats[link].request.abandoned
            < self._before[link].request.abandoned + self._plane.way(link).probe_bytes
        )

    def _span(self, found: probe.Round) -> str:
        ended_s = self._now_s() - (asyncio.get_running_loop().time() - found.ended_at)
        return f"from {ended_s - (found.ended_at - found.began_at):.2f} s to {ended_s:.2f} s"


def _links(them: Sized) -> str:
    return "1 cut link" if len(them) == 1 else f"{len(them)} cut links"


def _size(count: int) -> str:
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB"
