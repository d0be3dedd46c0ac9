"""The one interface of every substrate: a started cluster, its nodes and its links.

What a lab or the nemesis may do to a cluster is what is declared here; that a node is a local
process or a container must not show. How a node *looks* (`status`, `ready`) is asked of the node
itself, over an address that goes round the links: an observer that a partition can cut off would
report the partition as a dead node.

`node` is the name of a node; where the docstring says "or member", that of a member (Redis, Kafka)
will do as well. What only the project's own services have (status, telemetry, clock) stays theirs.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp

from labs.harness.links.control import Link, LinkControl
from labs.harness.testbed.description import ClusterSpec, MemberKind, State
from labs.harness.testbed.errors import NodeExited, TestbedError, ZygoteDied
from labs.harness.testbed.readiness import not_found, unready
from labs.harness.testbed.waiting import TimedOut, until

__all__ = [
    "Cluster",
    "NodeExited",
    "State",
    "TestbedError",
    "TimedOut",
    "ZygoteDied",
    "applied_alike",
    "until",
]

STATUS_WITHIN_S = 0.5
LEADING_ROLES = frozenset({"leader", "primary", "head"})


def leads(status: Mapping[str, Any]) -> bool:
    """Does this node believe that it leads?"""
    return status.get("role") in LEADING_ROLES


def applied_alike(statuses: Mapping[str, Mapping[str, Any] | None]) -> dict[str, str]:
    """A digest of each node's state, once all have applied all that the one that leads has.

    Empty until then.
    """
    ends = [said["last_index"] for said in statuses.values() if said and leads(said)]
    alike = len(ends) == 1 and all(
        said is not None and said["applied_index"] == ends[0] for said in statuses.values()
    )
    return {node: said["state_digest"] for node, said in statuses.items() if said} if alike else {}


class Cluster(ABC):
    """A started cluster.

    Attributes:
        spec: what it was started from.
        substrate: "local", "compose" …; for the record, not to decide anything by.
        directory: where its logs and telemetry are, and stay.
    """

    substrate: str
    spec: ClusterSpec
    directory: Path

    @property
    def relayed(self) -> bool:
        """Whether what the harness dials is a relay of the substrate's, which accepts first."""
        return False

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.spec.node_names

    @property
    def clients(self) -> tuple[str, ...]:
        return self.spec.clients

    @property
    def members(self) -> tuple[str, ...]:
        """Redis and Kafka, if the cluster has them: servers that are not the project's own."""
        return self.spec.member_names

    def member_kind(self, member: str) -> MemberKind:
        return self.spec.member(member).kind

    @property
    def links(self) -> tuple[Link, ...]:
        return self.spec.links

    # --- where things are

    @property
    @abstractmethod
    def link_control(self) -> LinkControl:
        """What sets the faults of its links."""

    @abstractmethod
    def address(self, client: str, node: str) -> str:
        """The "host:port" where a client of that group dials `node` or member: its link, with its
        faults.

        `client` may also be a node: where that node dials its peer. A Kafka broker tells whoever
        came over this link to go on using this address, so that no client leaves its link.
        """

    @abstractmethod
    def direct_address(self, node: str) -> str:
        """The harness's own way to `node` or member, round the links: to prepare and to look."""

    @abstractmethod
    def member_flavour(self, member: str) -> str:
        """What really runs as `member`: its make and version, and where it falls short.

        Such as "valkey 9.1.2", "apache kafka 4.1.1", "embedded tansu broker: …". It is told at the
        start of a run and kept in its verdict: what was shown was shown of this.
        """

    def member_flavours(self) -> dict[str, str]:
        """`member_flavour` of every member, by name."""
        return {member: self.member_flavour(member) for member in self.members}

    @abstractmethod
    def logs(self, node: str) -> Path:
        """What the process of the node or member wrote, over all its starts."""

    @abstractmethod
    def telemetry(self, node: str) -> Path:
        """The node's wide events, a JSON object a line, over all its starts."""

    # --- faults of processes, of nodes or members
    # (each waits until the operating system says that it is so)

    @abstractmethod
    def state(self, node: str) -> State:
        """As the operating system sees the process."""

    @abstractmethod
    async def kill(self, node: str) -> None:
        """SIGKILL; its data survives. Connections to it are then refused. No-op when stopped."""

    @abstractmethod
    async def start(self, node: str) -> None:
        """Start a stopped node on its old address and data; `ready([node])` waits for it.

        Raises:
            TestbedError: it is not stopped.
        """

    @abstractmethod
    async def stop_node(self, node: str, grace_s: float = 2.0) -> None:
        """SIGTERM, and SIGKILL when it has not ended after `grace_s`. No-op when stopped."""

    @abstractmethod
    async def pause(self, node: str) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""

    @abstractmethod
    async def resume(self, node: str) -> None:
        """Let a paused node go on. No-op when it is running."""

    @abstractmethod
    async def wipe(self, node: str) -> None:
        """Remove the data of a stopped node.

        Raises:
            TestbedError: it is not stopped; a process would write on into removed files.
        """

    @abstractmethod
    async def stop(self) -> None:
        """End all of it. Logs and telemetry stay, data goes."""

    @abstractmethod
    def check(self) -> None:
        """Raise if the cluster can no longer be what it claims to be.

        Raises:
            NodeExited: a node, or the link proxies, ended though nobody had asked for it.
            ZygoteDied: all of them did.
        """

    # --- the same on every substrate

    @property
    @abstractmethod
    def session(self) -> aiohttp.ClientSession:
        """For the harness's own requests."""

    async def ready(self, within_s: float = 10.0, nodes: Iterable[str] | None = None) -> None:
        """Wait until `nodes` or members (default: all of both) answer that they are ready.

        Where all are waited for, load balancers must have found each of their backends, too. A
        balancer is ready for users with one of them; a lab that then stops this one, or looks at
        how requests are shared, would measure who had been first at the start.

        Raises:
            NodeExited: one of the cluster's nodes ended by itself.
            TimedOut: the message says which node is not ready, and why.
        """
        wanted = [*self.members, *self.nodes] if nodes is None else list(nodes)
        reasons = dict.fromkeys(wanted, "not asked yet")

        async def ask(node: str) -> None:
            why = await self._unready(node)
            if nodes is None and not why and node in self.nodes:  # members do not speak HTTP
                said = await self.status(node)
                why = "has not told its status" if said is None else not_found(said)
            reasons[node] = why

        async def all_ready() -> bool:
            self.check()
            # A broker takes seconds to start, on the cores on which a dozen nodes would be asked
            # over and over: the one that was not ready is asked alone, and all once it is.
            first = wanted[:1] if self.members else []
            await asyncio.gather(*map(ask, first))
            if not any(reasons[node] for node in first):
                await asyncio.gather(*map(ask, wanted))
            self.check()
            if self.members:
                wanted.sort(key=lambda node: not reasons[node])
            return not any(reasons.values())

        try:
            await until(all_ready, within_s, f"{self.spec.name} ready")
        except TimedOut as timed_out:
            await asyncio.gather(*map(ask, wanted))  # the last look was at one, or cut short
            last = {node: why for node, why in reasons.items() if why}
            raise TimedOut(timed_out.what, within_s, last) from None

    async def status(self, node: str, within_s: float = STATUS_WITHIN_S) -> dict[str, Any] | None:
        """What the node says of itself (`/status`); None when it does not answer in time."""
        try:
            async with self._request("GET", node, "/status", within_s) as response:
                if response.status != 200:
                    return None
                answer = await response.json()
                return answer if isinstance(answer, dict) else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    async def statuses(self, within_s: float = STATUS_WITHIN_S) -> dict[str, dict[str, Any] | None]:
        """The status of every node, all asked at the same time."""
        answers = await asyncio.gather(*(self.status(node, within_s) for node in self.nodes))
        return dict(zip(self.nodes, answers, strict=True))

    async def health(self, check: str, within_s: float = 5.0) -> dict[str, int | None]:
        """Each node's answer to `/health/<check>` ("live", "ready"): the status; None for none.

        Who is asked once may take its time; what is asked again and again has STATUS_WITHIN_S.
        """

        async def ask(node: str) -> int | None:
            try:
                path = f"/health/{check}"
                async with self._request("GET", node, path, within_s) as response:
                    return response.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                return None

        answers = await asyncio.gather(*map(ask, self.nodes))
        return dict(zip(self.nodes, answers, strict=True))

    async def primaries(self) -> list[str]:
        """The nodes that believe they lead. Two can: that is the point of several labs."""
        statuses = await self.statuses()
        return [node for node, said in statuses.items() if said and leads(said)]

    async def set_clock(self, node: str, offset_ms: float = 0.0, rate: float = 1.0) -> None:
        """Step (`offset_ms`) or drift (`rate`) the node's clock; the machine's is not touched.

        Raises:
            TestbedError: the node did not take it.
        """
        setting = {"offset_ms": offset_ms, "rate": rate}
        try:
            async with self._request("POST", node, "/admin/clock", 10.0, setting) as response:
                if response.status != 200:
                    said = await response.text()
                    raise TestbedError(f"{node} refused the clock {setting}: {said[:300]}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TestbedError(f"{node} did not take the clock {setting}: {error!r}") from error

    def _request(
        self,
        method: str,
        node: str,
        path: str,
        within_s: float,
        body: Mapping[str, Any] | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self.session.request(
            method,
            f"http://{self.direct_address(node)}{path}",
            json=body,
            timeout=aiohttp.ClientTimeout(total=within_s),
        )

    async def _unready(self, node: str) -> str:
        """Why the node or member is not ready; empty when it is."""
        if node in self.members:
            why = await unready(self.member_kind(node), self.direct_address(node), STATUS_WITHIN_S)
            return why and f"{self.state(node)}, {why}"
        try:
            async with self._request("GET", node, "/health/ready", STATUS_WITHIN_S) as response:
                if response.status == 200:
                    return ""
                return f"{response.status} {(await response.text())[:200]}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{self.state(node)}, {type(error).__name__}: {error}"
