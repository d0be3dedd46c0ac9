"""What the shop's roles have in common: settings, life, calls to others that carry the context."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

import tenacity

from services.chassis.app import Context
from services.chassis.calls import CallHeaders, Calls
from services.chassis.config import (
    ConfigError,
    Invalid,
    Parser,
    ServiceConfig,
    integer,
    node,
    switch,
)
from services.chassis.errors import Indefinite, Unavailable
from services.chassis.http_client import Answer
from services.chassis.machine import Machine
from services.chassis.service import Service

RETRY_WAIT_MIN_S, RETRY_WAIT_MAX_S = 0.010, 0.200

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleConfig(ServiceConfig):
    """`retries`: further attempts at what is idempotent. 0 but for whoever is outermost: retries
    multiply along a chain (three services with three attempts each make 27 of one).

    `propagation`: off forgets to send the context along, as one hand-written client does.
    """

    retries: int = 0
    propagation: bool = True


def names(text: str) -> tuple[str, ...]:
    """`n1,n2`: names of peers, at least one."""
    found = tuple(node(each.strip()) for each in text.split(","))
    if len(set(found)) != len(found):
        raise Invalid("names of peers, joined by commas, each once")
    return found


ROLE_PARSERS: dict[str, Parser] = {
    "retries": integer(0, 10, "attempts"),
    "propagation": switch,
}


def check_peers(config: ServiceConfig, prefix: str, key: str, wanted: Sequence[str]) -> None:
    """Raises ConfigError unless all of `wanted`, given by `key`, are peers."""
    if strangers := [name for name in wanted if name not in config.peers]:
        known = ", ".join(config.peers) or "none"
        raise ConfigError(f"{prefix}{key}={','.join(wanted)}: {strangers[0]} is not among "
                          f"{prefix}PEERS: {known}")  # fmt: skip


class ForgetfulCalls(Calls):
    """Tells its own spans, and sends neither trace nor request id along."""

    @asynccontextmanager
    async def span(
        self, context: Context, peer: str, method: str, path: str
    ) -> AsyncIterator[CallHeaders]:
        async with super().span(context, peer, method, path) as headers:
            headers.clear()
            yield headers


class Role(Service):
    """A role of the shop; `role` is its name in `/status`.

    Ready is who can be asked: whether those can that it asks itself is not part of it. Else a store
    without a leader would take every service before it out of every load balancer, and each request
    would fail with "no backend" instead of with what is wrong.
    """

    role = "role"

    def __init__(self, config: RoleConfig, machine: Machine) -> None:
        super().__init__(config, machine)
        self.random = Random(machine.random.getrandbits(64))
        make = Calls if config.propagation else ForgetfulCalls
        self.calls = make(self.telemetry, self.clock)
        self._retries = config.retries
        self._peers = {name: str(address) for name, address in config.peers.items()}

    async def end(self) -> None:
        await self.calls.close()

    def details(self) -> dict[str, Any]:
        return {"role": self.role}

    def addresses(self, peers: Sequence[str]) -> dict[str, str]:
        """Where these peers are dialled."""
        return {name: self._peers[name] for name in peers}

    async def ask(
        self,
        peers: Sequence[str],
        method: str,
        path: str,
        *,
        context: Context,
        deadline: float,
        body: Any = None,
    ) -> Answer:
        """Call one of `peers`; another one with each retry. For idempotent requests only.

        Raises as `Calls.request`.
        """
        order = self.random.sample(peers, len(peers))
        attempts = iter(range(1 << 30))

        async def attempt() -> Answer:
            peer = order[next(attempts) % len(order)]
            return await self.calls.request(
                peer,
                method,
                f"http://{self._peers[peer]}{path}",
                context=context,
                deadline=deadline,
                body=body,
            )

        return await retrying(attempt, self._retries, deadline)


class _StopAt(tenacity.stop.stop_base):
    """No attempt that would begin at `deadline` (of the event loop's clock) or later."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        return asyncio.get_running_loop().time() + state.upcoming_sleep >= self._deadline


async def retrying(attempt: Callable[[], Awaitable[T]], retries: int, deadline: float) -> T:
    """The first success of at most `retries + 1` attempts before `deadline`.

    Only what may help is tried again: nobody answered (Indefinite), or somebody said "not now"
    (Unavailable). An error that was indefinite once stays so: that the last attempt was refused
    says nothing about the one that was lost.
    """
    lost: Indefinite | None = None

    async def noting() -> T:
        nonlocal lost
        try:
            return await attempt()
        except Indefinite as exc:
            lost = exc
            raise

    again = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type((Indefinite, Unavailable)),
        stop=tenacity.stop_after_attempt(retries + 1) | _StopAt(deadline),
        wait=tenacity.wait_random_exponential(multiplier=RETRY_WAIT_MIN_S, max=RETRY_WAIT_MAX_S),
        reraise=True,
    )
    try:
        return await again(noting)
    except Unavailable:
        if lost is not None:
            raise lost from None
        raise


def rest_of(context: Context, prefix: str) -> str:
    """What follows `prefix` in the path of the request."""
    return context.path[len(prefix) :]
