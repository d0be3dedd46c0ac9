"""Which link has which fault, when several scopes overlap; and which ways are intact.

On one link the fault that was put last rules until it is taken away; then the one before it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from labs.harness.links.control import Link, LinkFault, LinkStats
from labs.harness.nemesis.probe import Saw, Way

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence

    from labs.harness.testbed.description import MemberKind


class LinkControl(Protocol):
    """What the nemesis needs of the link proxies (`links.control.Links`)."""

    async def set(self, faults: Mapping[Link, LinkFault | None]) -> None: ...

    async def stats(self) -> dict[Link, LinkStats]: ...


class ClusterUnderTest(Protocol):
    """What the nemesis needs of a cluster (`testbed.cluster.Cluster`)."""

    @property
    def nodes(self) -> Sequence[str]: ...
    @property
    def clients(self) -> Sequence[str]: ...
    @property
    def members(self) -> Sequence[str]: ...
    @property
    def links(self) -> Sequence[Link]: ...
    @property
    def link_control(self) -> LinkControl: ...
    @property
    def relayed(self) -> bool: ...

    def member_kind(self, member: str) -> MemberKind: ...
    def address(self, client: str, node: str) -> str: ...
    def direct_address(self, node: str) -> str: ...
    def state(self, node: str) -> str: ...
    def kill(self, node: str) -> Awaitable[None]: ...
    def start(self, node: str) -> Awaitable[None]: ...
    def pause(self, node: str) -> Awaitable[None]: ...
    def resume(self, node: str) -> Awaitable[None]: ...
    def wipe(self, node: str) -> Awaitable[None]: ...
    def set_clock(self, node: str, offset_ms: float = 0, rate: float = 1) -> Awaitable[None]: ...
    def status(self, node: str) -> Awaitable[dict[str, Any] | None]: ...
    def primaries(self) -> Awaitable[list[str]]: ...
    def ready(self, within_s: float, nodes: Iterable[str] | None = None) -> Awaitable[None]: ...


class LinkPlane:
    """The faults on all links of `cluster`, by owner (the id of a scope)."""

    def __init__(self, cluster: ClusterUnderTest) -> None:
        self.cluster = cluster
        self._stacks: dict[Link, list[tuple[int, LinkFault]]] = {}

    async def put(self, owner: int, faults: Mapping[Link, LinkFault]) -> None:
        """Put faults on top. They are on the books before they are set: a heal takes them all."""
        for link, fault in faults.items():
            self._stacks.setdefault(link, []).append((owner, fault))
        await self.cluster.link_control.set(faults)

    async def take(self, owner: int) -> None:
        """Take away what `owner` put; what it covered rules again. Safe to repeat."""
        mine = [link for link, stack in self._stacks.items() if any(o == owner for o, _ in stack)]
        changed: dict[Link, LinkFault | None] = {}
        for link in mine:
            left = [each for each in self._stacks[link] if each[0] != owner]
            if not left:
                changed[link] = None
            elif left[-1] != self._stacks[link][-1]:
                changed[link] = left[-1][1]
        await self.cluster.link_control.set(changed)
        # Only now off the books: a command that failed is repeated by the next clean-up.
        for link in mine:
            self._stacks[link] = [each for each in self._stacks[link] if each[0] != owner]

    def rules(self, owner: int, link: Link) -> bool:
        """Whether the fault of `owner` is the one that `link` has now."""
        stack = self._stacks.get(link)
        return bool(stack) and stack is not None and stack[-1][0] == owner

    def faulty(self, link: Link) -> bool:
        """Whether `link` has any fault."""
        return bool(self._stacks.get(link))

    def seen_as(self, saw: Saw) -> tuple[Saw, ...]:
        """What a caller here may see where a caller on the link sees `saw`.

        A relay of the substrate accepts for everybody: then a connection that is refused or reset
        behind it has only ended.
        """
        if self.cluster.relayed and saw in ("refused", "reset"):
            return ("refused", "reset", "closed")
        return (saw,)

    def running(self) -> list[str]:
        """The nodes and members that can answer."""
        servers = [*self.cluster.nodes, *self.cluster.members]
        return [server for server in servers if self.cluster.state(server) == "running"]

    def way(self, link: Link) -> Way:
        """How to ask over `link`."""
        return self._way(self.cluster.address(*link), link.dst)

    def direct_way(self, server: str) -> Way:
        """How to ask a node or member round all links."""
        return self._way(self.cluster.direct_address(server), server)

    def intact_links(self) -> dict[Way, Link]:
        """The ways over intact links; only those to nodes and members that can answer."""
        running = set(self.running())
        return {
            self.way(link): link
            for link in self.cluster.links
            if not self.faulty(link) and link.dst in running
        }

    def direct(self, servers: Iterable[str]) -> dict[Way, str]:
        """Ways to `servers` (those that can answer) round all links."""
        running = set(self.running())
        return {self.direct_way(server): server for server in servers if server in running}

    def _way(self, address: str, server: str) -> Way:
        if server in self.cluster.members:
            return Way(address, self.cluster.member_kind(server))
        return Way(address)
