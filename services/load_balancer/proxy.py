"""What all connections share: the backends, the limits, identity and telemetry; and the listener.

Requests for the balancer itself (`/health/live`, `/health/ready`, `/status`, `/metrics`, and, when
that is switched on, `/admin/`) go to its own face, an aiohttp application on a listener of its
own, over the same data path as everything else. So they are never shed, judged or retried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from services.chassis.clock import Clock
from services.chassis.config import Address
from services.chassis.metrics import Metrics
from services.chassis.telemetry import TEXT_MAX, Telemetry
from services.load_balancer.admission import Admission
from services.load_balancer.backends import Backend, Backends
from services.load_balancer.config import BalancerConfig
from services.load_balancer.downstream import Downstream
from services.load_balancer.exchange import Exchange
from services.load_balancer.framing import RequestHead
from services.load_balancer.identity import Identity, draw
from services.load_balancer.policies import POLICIES
from services.load_balancer.retries import RetryPolicy
from services.load_balancer.settings import Times
from services.load_balancer.upstream import Upstream
from services.load_balancer.waiting_line import WaitingLine
from services.resilience.retry_budget import RetryBudget

OWN_PATHS = frozenset((b"/health/live", b"/health/ready", b"/status", b"/metrics"))
ADMIN_PATH = b"/admin/"
RETRY_BURST_S = 10  # so many seconds of its minimum a retry budget saves up

_METHODS = {name.encode(): name for name in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS")}


class Proxy:
    """To be made inside a running event loop.

    Args:
        own: where the balancer's own face listens, known once it does.
    """

    def __init__(
        self,
        config: BalancerConfig,
        *,
        clock: Clock,
        telemetry: Telemetry,
        metrics: Metrics,
        log: Any,
        random: Random,
    ) -> None:
        self.config = config
        self.loop = asyncio.get_running_loop()
        self.log = log
        self.times = Times.of(config)
        self.now: Callable[[], float] = clock.true_monotonic
        self.admission = Admission(config.limits())
        drawn = Random(config.seed) if config.seed else random
        self.backends = Backends(config, POLICIES[config.policy](drawn))
        self.hashes = self.backends.policy.hashes
        self.retries = RetryPolicy(
            attempts=config.retry_attempts,
            wait_s=config.retry_wait_ms / 1000,
            budget=RetryBudget(
                ratio=config.retry_budget / 100,
                minimum_per_s=config.retry_minimum_per_s,
                burst=max(1, config.retry_minimum_per_s * RETRY_BURST_S),
            ),
            now=self.loop.time,
        )
        self.line = WaitingLine(
            self.loop,
            wait_s=config.backend_wait_ms / 1000,
            length_max=config.backend_waiting_max,
            next_change=self.backends.next_change,
        )
        self.backends.told = self.line.place_freed
        self.clients: dict[Downstream, None] = {}  # in the order they came
        self.draining = False
        self.port = 0
        self.via = b"Via: 1.1 %b\r\n" % config.node.encode()
        self.own = Backend(config.node, config.admin_listen, 1, config)
        self.own.served_by = b""
        self._admin = config.admin or config.fault_injection
        self._metrics = metrics
        self._telemetry = telemetry
        self._getrandbits = random.getrandbits
        self._drawn: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._idle = asyncio.Event()

    # ------------------------------------------------------------------ life

    async def start(self, own: Address) -> None:
        """Listen; `port` is then the real one. Raises OSError."""
        self.own.address = own
        listen = self.config.listen
        # A testbed may hold the port for us, bound but not listening, until we come.
        self._server = await self.loop.create_server(
            lambda: Downstream(self),
            listen.host.strip("[]"),
            listen.port,
            reuse_port=True,
            backlog=4096,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def drain(self, grace_s: float) -> None:
        """Accept no more; return when every request is answered, or after `grace_s`."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for client in list(self.clients):
            client.close_if_idle()
        if self.clients and grace_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._idle.wait()

    def close(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for client in list(self.clients):
            client.abort()
        for backend in (*self.backends.all.values(), self.own):
            backend.close_idle()

    def gone(self, client: Downstream) -> None:
        """A client's connection is closed."""
        self.clients.pop(client, None)
        if self.draining and not self.clients:
            self._idle.set()

    # ------------------------------------------------------------------ for an exchange

    def is_own(self, head: RequestHead) -> bool:
        """Is it for the balancer itself?"""
        target = head.target
        # Not `in`, which tries its operand as a number first: three times the time.
        path = target if target.find(b"?") < 0 else head.path
        return path in OWN_PATHS or (self._admin and path.startswith(ADMIN_PATH))

    def hash_key(self, head: RequestHead, client: Downstream) -> str:
        """What a hashing policy is to hash."""
        kind = self.config.hash_key
        if self.config.policy == "ip_hash" or kind == "ip":
            return client.address
        if kind == "path":
            return head.path.decode("latin-1")
        wanted = kind.partition(":")[2].lower().encode() + b":"
        for line in head.fields.split(b"\r\n"):
            if line[: len(wanted)].lower() == wanted:
                return line[len(wanted) :].strip().decode("latin-1")
        return client.address  # a client that names none keeps its backend

    async def connect(self, backend: Backend) -> Upstream:
        """A new connection. Raises OSError, of which TimeoutError is one."""
        host, port = backend.address.host.strip("[]"), backend.address.port
        upstream = Upstream(backend, self.times, self.loop)
        try:
            async with asyncio.timeout(self.times.connect_s):
                await self.loop.create_connection(lambda: upstream, host, port)
        except BaseException:
            # Cancelled after `connection_made`: uvloop closes it without a `connection_lost`.
            upstream.uncount()
            raise
        return upstream

    def identify(self, head: RequestHead | None) -> Identity:
        """The caller's request id and trace, with a span of our own; made where there is none."""
        if not self._drawn:
            self._drawn = draw(self._getrandbits)
        return Identity(self._drawn.pop(), head)

    def tell(self, exchange: Exchange, status: int, outcome: str, now: float) -> None:
        """A request is over, at `now` of telemetry's clock: count it, and write its wide event."""
        duration_s = now - exchange.began
        head = exchange.head
        if not exchange.admitted and head is not None and self.is_own(head):
            return  # the own face tells of it itself
        method = _METHODS.get(exchange.method) or exchange.method.decode("latin-1") or "?"
        self._metrics.request(method, outcome, duration_s)
        identity = exchange.identity
        if not self._telemetry.enabled or not identity.sampled:
            return
        self._telemetry.emit(
            {
                "event": "request",
                "kind": "span",
                "trace_id": identity.trace_id,
                "span_id": identity.span_id,
                "parent_span_id": identity.parent_span_id,
                "request_id": identity.request_id,
                "method": method[:20],
                "path": head.path[:TEXT_MAX].decode("latin-1") if head is not None else "?",
                "status": status,
                "outcome": outcome,
                "duration_us": round(duration_s * 1e6),
                "client": exchange.client.address,
                "backend": exchange.tried[-1] if exchange.tried else None,
                "attempts": exchange.tried if exchange.attempts > 1 else exchange.attempts,
                "request_bytes": exchange.body.received,
                "answer_bytes": exchange.answer_bytes,
                "detail": str(exchange.error)[:TEXT_MAX] if exchange.error else None,
            }
        )
