"""The simulated network: addresses, who listens where, and the links with their faults.

Every address is a `Route`: either straight to a listener (the harness' own way round the links) or
over a directed link with the fault vocabulary of `labs.harness.links.fault`. What a fault does to
open and new connections is the table there; two things are as in a real network rather than as at
a proxy: a target that does not listen is *refused* over a link, too, and a connection never costs
less than a round trip. `loss`, `duplicate` and `reorder` belong to datagrams: under a byte stream
they show as delay (TCP sends again, in order), so a link has `delay` with jitter and no more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from labs.harness.links.control import Links
from labs.harness.links.fault import Link, LinkFault, LinkStats, StreamStats
from labs.harness.links.stream import Shape
from labs.harness.testbed.simulation.connection import Connection, End

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from labs.harness.testbed.simulation.loop import VirtualLoop
from labs.harness.testbed.simulation.scheduler import Simulation

LOOPBACK = "127.0.0.1"
FIRST_PORT = 20_000
LATENCY_NS, LATENCY_SPREAD_NS = 50_000, 150_000  # one way; a round trip of 0.1 to 0.4 ms

Address = tuple[str, int]


class Listener:
    """A listening socket, and the `asyncio.Server` that its process sees."""

    def __init__(
        self, network: Network, loop: VirtualLoop, factory: Callable[[], Any], address: Address
    ) -> None:
        self.loop = loop
        self.address = address
        self._network = network
        self._factory = factory
        network.listeners[address] = self
        loop.listeners[self] = None

    def accept(self, end: End) -> None:
        """In the listening process, when it gets round to it."""
        if not end.is_closing():
            end.begin(self._factory())

    # --- asyncio.Server

    @property
    def sockets(self) -> tuple[Listener, ...]:
        return (self,) if self.is_serving() else ()

    def getsockname(self) -> Address:
        return self.address

    def get_loop(self) -> VirtualLoop:
        return self.loop

    def is_serving(self) -> bool:
        return self._network.listeners.get(self.address) is self

    async def start_serving(self) -> None:
        """It does, from the beginning."""

    def close(self) -> None:
        if self.is_serving():
            del self._network.listeners[self.address]
        self.loop.listeners.pop(self, None)

    async def wait_closed(self) -> None:
        """It is: connections have lives of their own."""


class Route:
    """What is behind an address: a target, perhaps over a link that can have a fault."""

    def __init__(self, network: Network, address: Address, target: Address, random: Random) -> None:
        self.network = network
        self.simulation = network.simulation
        self.address = address
        self.target = target
        self.request = Shape("request", random)
        self.response = Shape("response", random)
        self.fault: LinkFault | None = None
        self.accepted = self.resets = self.target_refused = 0
        self._random = random
        self._connections: dict[Connection, None] = {}

    def latency_ns(self) -> int:
        return LATENCY_NS + int(self._random.random() * LATENCY_SPREAD_NS)

    def listener(self) -> Listener | None:
        return self.network.listeners.get(self.target)

    def refuses(self) -> bool:
        return self.fault is not None and self.fault.kind == "refuse"

    def resets_new(self) -> bool:
        return self.fault is not None and self.fault.kind == "reset"

    def take(self, connection: Connection) -> None:
        self.accepted += 1
        self._connections[connection] = None

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def set(self, fault: LinkFault | None) -> None:
        """Take on `fault` in place of the present one (None: heal), in this instant."""
        self.fault = fault
        self.request.set(fault)
        self.response.set(fault)
        if fault is not None and fault.kind in ("refuse", "reset"):
            self.resets += len(self._connections)
            for connection in list(self._connections):
                connection.reset()
        else:
            for connection in list(self._connections):
                connection.refresh()

    def stats(self) -> LinkStats:
        return LinkStats(
            open=len(self._connections),
            accepted=self.accepted,
            reset=self.resets,
            target_refused=self.target_refused,
            request=self._stream(self.request, sum(c.request.queued for c in self._connections)),
            response=self._stream(self.response, sum(c.response.queued for c in self._connections)),
            fault=self.fault,
        )

    def _stream(self, shape: Shape, held: int) -> StreamStats:
        since = shape.passed - shape.passed_before_fault if shape.faulty else 0
        return StreamStats(shape.passed, since, held, shape.abandoned)


class Network:
    """All addresses of a simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.listeners: dict[Address, Listener] = {}
        self._routes: dict[Address, Route] = {}
        self._port = FIRST_PORT
        simulation.network = self

    def next_port(self) -> int:
        self._port += 1
        return self._port

    def listen(
        self, loop: VirtualLoop, factory: Callable[[], Any], host: str, port: int
    ) -> Listener:
        address = (host, port or self.next_port())
        if address in self.listeners:
            raise OSError(98, f"address {host}:{port} is in use")
        return Listener(self, loop, factory, address)

    async def dial(self, loop: VirtualLoop, address: Any) -> End:
        """Connect. Raises ConnectionRefusedError."""
        host, port = address[:2]
        return await Connection(self._route((host, int(port))), loop).established()

    def add_link(self, link: Link, target: Address) -> Route:
        """A new address that leads to `target` over `link`."""
        address = (LOOPBACK, self.next_port())
        random = self.simulation.random(f"link {link} {address[1]}")
        route = self._routes[address] = Route(self, address, target, random)
        return route

    def remove(self, route: Route) -> None:
        self._routes.pop(route.address, None)

    def _route(self, address: Address) -> Route:
        route = self._routes.get(address)
        if route is None:
            random = self.simulation.random(f"way to {address[1]}")
            route = self._routes[address] = Route(self, address, address, random)
        return route


class SimulatedLinks(Links):
    """The control of the links of one cluster: the commands of `Links`, with nobody to ask."""

    def __init__(self, network: Network, targets: Mapping[Link, Address]) -> None:
        self._routes = {link: network.add_link(link, target) for link, target in targets.items()}

    def address(self, link: Link) -> str:
        host, port = self._routes[link].address
        return f"{host}:{port}"

    async def set(self, faults: Mapping[Link, LinkFault | None]) -> None:
        for link, fault in faults.items():
            self._routes[link].set(fault)
        await asyncio.sleep(0)

    async def stats(self) -> dict[Link, LinkStats]:
        await asyncio.sleep(0)
        return {link: route.stats() for link, route in self._routes.items()}

    async def close(self, *, links: bool = False) -> None:
        for route in self._routes.values() if links else ():
            route.network.remove(route)
