"""The links of a cluster in containers: its proxies found, told what to listen on, and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from labs.harness.links.control import LinkControl, Links, LinksError
from labs.harness.links.packets import PacketLinks
from labs.harness.links.proxy import CONNECT_WITHIN_S
from labs.harness.testbed.compose_containers import Containers
from labs.harness.testbed.compose_project import LINKS, Layout
from labs.harness.testbed.compose_shell import Shell
from labs.harness.testbed.waiting import until

CONTROL_WITHIN_S = 20.0
# Over a cut of packets a connection is not set up at all: the relay waits for as long as its caller
# does, and about as long as Linux itself tries. (At a proxy it is held before it is connected.)
CUT_OFF_WITHIN_S = 120.0


class OpenLinks:
    """`open()` first, when the containers run; then `control` sets the faults; `close()`.

    `check` raises when a container has ended.
    """

    control: LinkControl

    def __init__(self, layout: Layout, containers: Containers, check: Callable[[], None]) -> None:
        self._layout = layout
        self._containers = containers
        self._check = check
        self._relays: dict[str, Links] = {}
        self._shells: dict[str, Shell] = {}

    async def open(self) -> None:
        """The proxies of all links listen; with packets, their rules are laid as well.

        Raises NodeExited, TimedOut, LinksError, TestbedError.
        """
        await asyncio.gather(*map(self._open_relay, self._layout.relays))
        if self._layout.plane == "proxies":
            self.control = self._relays[LINKS]
            return
        await asyncio.gather(*map(self._open_shell, self._layout.relays))
        targets = {link: self._layout.target(link) for link in self._layout.spec.links}
        packets = PacketLinks(self._nft, self._relays, targets)
        await packets.open()
        self.control = packets

    async def close(self) -> None:
        """Close the links and hang up; rules of packets end with their pods."""
        for relay in self._relays.values():
            await relay.close(links=True)
        for shell in self._shells.values():
            await shell.close()

    async def _open_relay(self, relay: str) -> None:
        control = self._relays[relay] = await self._connect(relay)
        layout = self._layout
        mine = [link for link in layout.spec.links if layout.relay(link) == relay]
        await control.open(
            {link: layout.target(link) for link in mine},
            host="0.0.0.0",
            ports={link: layout.link_port(link) for link in mine},
            connect_within_s=CONNECT_WITHIN_S if layout.plane == "proxies" else CUT_OFF_WITHIN_S,
        )

    async def _connect(self, relay: str) -> Links:
        """The control of the proxies in `relay`, as soon as they listen."""
        host, _, port = self._layout.control(relay).rpartition(":")

        async def connected() -> Links | None:
            self._check()
            try:
                links = await Links.connect(host, int(port), within_s=5.0)
            except LinksError:
                return None
            try:
                await links.stats()  # a published port accepts before anybody listens behind it
            except LinksError:
                await links.close()
                return None
            return links

        links = await until(connected, CONTROL_WITHIN_S, "the link proxies listen")
        assert links is not None
        return links

    async def _open_shell(self, relay: str) -> None:
        self._shells[relay] = await self._containers.shell(relay)

    async def _nft(self, source: str, script: str) -> str:
        return await self._shells[source].run("nft --json --file -", script)
