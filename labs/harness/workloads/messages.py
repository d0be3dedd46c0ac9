"""Messages sent at a fixed rate, and what has become of them when all is over.

`MessageWorkload` sends through producers and records each call; `Ledger` reads what consumers did
from Redis, round the links. A message is named by its id, so that a repeated one can be told from
two of the same content.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import redis.asyncio

from labs.harness.history import Recorder
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.open_loop import Operations, arrivals
from labs.harness.workloads.tracing import new_trace
from services.chassis.errors import Definite, Indefinite
from services.consumer.client import MessageClient


class Message(NamedTuple):
    """One message that was sent: `number` counts those of its key, from 0."""

    id: str
    key: str
    number: int
    node: str
    sent_ns: int


class MessageWorkload:
    """`rate_per_s` messages a second to each of `producers`, from `place`, of `keys` keys of each
    kind: `order.p1-7` is one of kind "order".

    Each key belongs to one producer, which sends its messages one after another: only then is there
    an order that a consumer could keep. A key whose message is still unanswered is left out; one
    of which nobody knows whether its message was sent is replaced.
    """

    def __init__(
        self,
        place: str,
        producers: tuple[str, ...],
        *,
        seed: int,
        rate_per_s: float = 100,
        keys: int = 30,
        kinds: tuple[str, ...] = ("key",),
        deadline_ms: int = 2_000,
    ) -> None:
        self.place, self.producers, self.rate_per_s = place, producers, rate_per_s
        self.deadline_ms = deadline_ms
        self.acknowledged: dict[str, Message] = {}
        self.unknown: dict[str, Message] = {}
        self.refused = 0
        self._random = Random(seed)
        self._idle = {
            node: [f"{kind}.{node}-{number}" for kind in kinds for number in range(keys)]
            for node in producers
        }
        self._numbers: Counter[str] = Counter()
        self._process: dict[str, int] = {}
        self._processes = 0
        self._dispatchers: list[asyncio.Task[None]] = []
        self._operations = Operations()
        self._on_progress: Callable[[str], None] = lambda text: None
        self.lateness_s = 0.0

    @property
    def sent(self) -> dict[str, Message]:
        """Everything that may have been accepted."""
        return self.acknowledged | self.unknown

    def of(self, node: str, since_ns: int = 0) -> list[Message]:
        """Acknowledged messages of one producer that were sent at `since_ns` or later."""
        return [
            message
            for message in self.acknowledged.values()
            if message.node == node and message.sent_ns >= since_ns
        ]

    async def start(
        self,
        cluster: Cluster,
        recorder: Recorder,
        on_progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin."""
        self._recorder, self._on_progress = recorder, on_progress
        addresses = {node: cluster.address(self.place, node) for node in self.producers}
        self._client = MessageClient(addresses)
        self._dispatchers = [asyncio.create_task(self._dispatch(node)) for node in self.producers]

    async def stop(self) -> None:
        """Send no more; what is under way ends by its deadline."""
        for task in self._dispatchers:
            task.cancel()
        await asyncio.gather(*self._dispatchers, return_exceptions=True)
        await self._operations.ended()
        await self._client.close()
        self._operations.check()

    async def _dispatch(self, node: str) -> None:
        async for late_s in arrivals(lambda: self.rate_per_s, self._random):
            self.lateness_s = max(self.lateness_s, late_s)
            idle = self._idle[node]
            if idle:
                key = idle.pop(self._random.randrange(len(idle)))
                self._operations.start(self._send(node, key))

    async def _send(self, node: str, key: str) -> None:
        number = self._numbers[key]
        self._numbers[key] += 1
        name = f"{key}/{number}"
        process = self._process.pop(key, None)
        if process is None:
            process = self._processes
            self._processes += 1
        message = Message(name, key, number, node, self._recorder.now_ns())
        trace = new_trace()
        handle = self._recorder.invoke(
            process, "send", key, name, client=self.place, node=node, **trace.fields
        )
        try:
            await self._client.send(
                node,
                1,
                key=key,
                message_id=name,
                deadline_ms=self.deadline_ms,
                headers=trace.headers,
            )
        except Definite as error:
            self.refused += 1
            self._recorder.fail(handle, error=str(error))
        except Indefinite as error:
            # Its key is spent: a later message could overtake this one, and nobody would be wrong.
            self.unknown[name] = message
            self._recorder.info(handle, error=str(error))
            key = f"{key}_"  # another one takes its place
        else:
            self.acknowledged[name] = message
            self._recorder.ok(handle)
        if name not in self.unknown:
            self._process[key] = process
        self._idle[node].append(key)
        self._on_progress(
            f"{len(self.acknowledged)} acknowledged · {self.refused} refused · "
            f"{len(self.unknown)} unknown"
        )


async def send_poison(
    cluster: Cluster, place: str, node: str, count: int
) -> tuple[set[str], str]:
    """Messages that no consumer can process, each of a key of its own, and then a good one of the
    first's key. Returns their ids and the good one's, once all are accepted."""
    poison = [f"poison-{node}/{number}" for number in range(count)]
    good = f"after-{node}/{count}"
    async with MessageClient({node: cluster.address(place, node)}) as client:
        for number, name in enumerate([*poison, good]):
            await client.send(
                node,
                1 if name == good else "not a number",
                key=f"poison.{node}-{number % count}",
                message_id=name,
                deadline_ms=10_000,
            )
    return set(poison), good


@dataclass(slots=True)
class Ledger:
    """What took effect: by key, the ids of messages in the order in which they did."""

    applied: dict[str, list[str]] = field(default_factory=dict)

    @property
    def times(self) -> Counter[str]:
        """How often each message took effect."""
        return Counter(name for names in self.applied.values() for name in names)

    def lost(self, messages: Mapping[str, Message]) -> list[str]:
        """Of these messages, those that never took effect."""
        times = self.times
        return [name for name in messages if not times[name]]

    def repeated(self) -> list[str]:
        """Messages that took effect more than once."""
        return [name for name, count in self.times.items() if count > 1]

    def out_of_order(self) -> list[str]:
        """Keys of which a message took effect, for the first time, after a later one."""

        def ordered(names: list[str]) -> bool:
            numbers = [int(name.rpartition("/")[2]) for name in dict.fromkeys(names)]
            return numbers == sorted(numbers)

        return [key for key, names in self.applied.items() if not ordered(names)]


async def read_ledger(cluster: Cluster, namespace: str, member: str = "redis") -> Ledger:
    """The effects of the consumers that write below `namespace`."""
    client = redis.asyncio.Redis.from_url(f"redis://{cluster.direct_address(member)}")
    try:
        head = f"{namespace}:log:"
        keys = [key.decode() async for key in client.scan_iter(match=head + "*", count=1000)]
        async with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.lrange(key, 0, -1)
            lists = await pipeline.execute()
    finally:
        await client.aclose()
    return Ledger(
        {
            key.removeprefix(head): [name.decode() for name in names]
            for key, names in zip(keys, lists, strict=True)
        }
    )


async def read_orders(cluster: Cluster, member: str = "redis") -> set[str]:
    """The ids of all orders in the producers' database."""
    client = redis.asyncio.Redis.from_url(f"redis://{cluster.direct_address(member)}")
    try:
        return {
            key.decode().removeprefix("order:")
            async for key in client.scan_iter(match="order:*", count=1000)
        }
    finally:
        await client.aclose()
