"""Links cut packet by packet: nftables in the namespace of each link's source.

    n1's namespace                                  n2's namespace
      n1 ──────────── requests ──▶ ✂ ─────────────▶ n2 :8000
      relay ─ (the runner's own) ▶ ✂ ─────────────▶
         ◀─────────── ✂ ◀──────── responses ───────

A link is known by where it leads: packets of the source to the target's port are its requests, and
those that come from that port its responses. So the link n2→n1 is another one, even though both
connect the same two addresses, and a one-way cut is one of requests, as at the proxies.

The rules are in the namespace, which belongs to the pod: a node that is killed and started again
comes back into its partition. What is dropped the kernel sends again after the heal, with growing
pauses; that is what real partitions look like, and why recovery takes a little longer than behind
a proxy.

Not everything can be done to packets here: `delay` and `rate` need netem or the like, which many
kernels lack. They are refused, not pretended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple

from labs.harness.links.control import Links, LinksError
from labs.harness.links.fault import HOLDING, Link, LinkFault, LinkStats, StreamName, StreamStats
from labs.harness.links.server import split_address

TABLE = "inet faultline"
# Which packets of a stream that a fault is on the rule is for, and what it does to them.
VERDICTS = {
    **dict.fromkeys(HOLDING, ("", "drop")),
    "refuse": ("", "reject with tcp reset"),
    # The handshake is let through, so that the caller is connected first; then its bytes are not.
    "reset": ("tcp flags & psh == psh", "reject with tcp reset"),
}
CHAINS: dict[StreamName, str] = {"request": "out", "response": "in"}

Nft = Callable[[str, str], Awaitable[str]]
"""(source, script) → what nft printed, run in the namespace of `source`. Raises LinksError."""


class Counted(NamedTuple):
    """Bytes that the rules of one stream have let pass, and have not."""

    passed: int
    stopped: int


class PacketLinks:
    """The links of a cluster with `FAULTS=packets` (a `LinkControl`).

    Args:
        nft: runs nftables in a source's namespace.
        relays: the control of the proxies in each source's pod, open on the links of that source.
        targets: where each link leads ("host:port").
    """

    def __init__(self, nft: Nft, relays: Mapping[str, Links], targets: Mapping[Link, str]) -> None:
        self._nft = nft
        self._relays = relays
        self._numbers = {link: number for number, link in enumerate(targets)}
        self._targets = targets
        self._faults: dict[Link, LinkFault | None] = dict.fromkeys(targets)
        self._since = {(link, stream): Counted(0, 0) for link in targets for stream in CHAINS}

    async def open(self) -> None:
        """Lay the rules of all links, none of which has a fault yet."""
        await self._everywhere({src: [*self._table(src)] for src in self._relays})

    async def set(self, faults: Mapping[Link, LinkFault | None]) -> None:
        """Give each link its fault (None: heal), in one step for each source. Raises LinksError."""
        for link, fault in faults.items():
            if link not in self._numbers:
                raise LinksError(f"no such link: {link}; nothing was set")
            if fault is not None and fault.kind not in VERDICTS:
                raise LinksError(
                    f"{fault.kind} can't be done to packets on every kernel: say FAULTS=proxies"
                )
        if not faults:
            return
        scripts: dict[str, list[str]] = {}
        for link, fault in faults.items():
            scripts.setdefault(link.src, []).extend(self._rules(link, fault))
        await self._everywhere(scripts)
        # Counted after the step: what passed before it is no leak.
        counted = await self._count({link.src for link in faults})
        await self._set_relays(faults)
        for link, fault in faults.items():
            for stream in CHAINS:
                now = counted[link, stream]
                healthy = self._faults[link] is None
                # What the rules have stopped since the step counts; between faults it is nothing.
                stopped = self._since[link, stream].stopped if healthy and fault else now.stopped
                self._since[link, stream] = Counted(now.passed, stopped)
            self._faults[link] = fault

    async def stats(self) -> dict[Link, LinkStats]:
        """What the rules have counted; sizes are those of IP packets, headers included."""
        counted = await self._count(self._relays)
        found = {}
        for link, fault in self._faults.items():
            request, response = (self._stream(link, stream, counted) for stream in CHAINS)
            found[link] = LinkStats(0, 0, 0, 0, request, response, fault)
        return found

    async def close(self) -> None:
        for relay in self._relays.values():
            await relay.close()

    # --- how it is done

    def _table(self, src: str) -> list[str]:
        """Two hooks that send each link's packets to chains of its own."""
        lines = [f"add table {TABLE}", f"flush table {TABLE}"]
        hooks = {"out": "output", "in": "input"}
        for chain, hook in hooks.items():
            priority = f"{{ type filter hook {hook} priority 0; }}"
            lines.append(f"add chain {TABLE} {hook} {priority}")
            for link, number in self._numbers.items():
                if link.src != src:
                    continue
                host, port = split_address(self._targets[link])
                end = "d" if chain == "out" else "s"
                match = f"ip {end}addr {host} tcp {end}port {port}"
                lines += [
                    f"add counter {TABLE} passed_{chain}_{number}",
                    f"add counter {TABLE} stopped_{chain}_{number}",
                    f"add chain {TABLE} {chain}_{number}",
                    f"add rule {TABLE} {hook} {match} jump {chain}_{number}",
                ]
        for link in self._numbers:
            lines += self._rules(link, None) if link.src == src else []
        return lines

    def _rules(self, link: Link, fault: LinkFault | None) -> list[str]:
        lines = []
        for stream, chain in CHAINS.items():
            name = f"{chain}_{self._numbers[link]}"
            lines.append(f"flush chain {TABLE} {name}")
            if fault is not None and fault.on(stream):
                lines.append(f"add rule {TABLE} {name} {_stopping(fault.kind, name)}")
            lines.append(f"add rule {TABLE} {name} counter name passed_{name}")
        return lines

    async def _set_relays(self, faults: Mapping[Link, LinkFault | None]) -> None:
        """The runner's own callers are refused and reset where they dial, at the relay."""
        wanted: dict[str, dict[Link, LinkFault | None]] = {}
        for link, fault in faults.items():
            ends = fault is not None and fault.kind not in HOLDING
            before = self._faults[link]
            ended = before is not None and before.kind not in HOLDING
            if ends or ended:
                wanted.setdefault(link.src, {})[link] = fault if ends else None
        await asyncio.gather(*(self._relays[src].set(each) for src, each in wanted.items()))

    async def _everywhere(self, scripts: Mapping[str, list[str]]) -> None:
        done = await asyncio.gather(
            *(self._nft(src, "\n".join(lines)) for src, lines in scripts.items()),
            return_exceptions=True,
        )
        for result in done:  # the others are set all the same: a heal must heal them
            if isinstance(result, BaseException):
                raise result

    async def _count(self, sources: Collection[str]) -> dict[tuple[Link, StreamName], Counted]:
        order = sorted(sources)
        script = f"list counters table {TABLE}"
        answers = await asyncio.gather(*(self._nft(src, script) for src in order))
        found = {}
        for src, answer in zip(order, answers, strict=True):
            bytes_of = _counters(answer)
            for link, number in self._numbers.items():
                if link.src != src:
                    continue
                for stream, chain in CHAINS.items():
                    name = f"{chain}_{number}"
                    found[link, stream] = Counted(
                        bytes_of[f"passed_{name}"], bytes_of[f"stopped_{name}"]
                    )
        return found

    def _stream(
        self, link: Link, stream: StreamName, counted: Mapping[Any, Counted]
    ) -> StreamStats:
        now = counted[link, stream]
        if self._faults[link] is None:
            return StreamStats(now.passed, 0, 0, 0)
        before = self._since[link, stream]
        return StreamStats(now.passed, now.passed - before.passed, now.stopped - before.stopped, 0)


def _stopping(kind: str, name: str) -> str:
    """The rule that stops a packet, counted only when it does match."""
    match, verdict = VERDICTS[kind]
    return " ".join(filter(None, (match, f"counter name stopped_{name}", verdict)))


def _counters(answer: str) -> dict[str, int]:
    """Bytes by counter, from `nft --json list counters`. Raises LinksError."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        listed = json.loads(answer)["nftables"]
        return {
            each["counter"]["name"]: int(each["counter"]["bytes"])
            for each in listed
            if "counter" in each
        }
    raise LinksError(f"nft listed no counters: {answer[:200]}")
