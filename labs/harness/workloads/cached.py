"""Clients of caches: readers and writers that are recorded, bursts, and what a cache counts.

`CacheLoad`: each key has one writer, which writes its values one after another, so that their order
is known (`checkers.regular`); readers come at exponentially distributed intervals. Both choose a
cache node at random for each operation, as a balancer in front would.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import aiohttp

from labs.harness.history import Recorder
from labs.harness.testbed.cluster import Cluster
from labs.harness.testbed.operator import AS_OPERATOR
from labs.harness.workloads.open_loop import Operations, arrivals
from labs.harness.workloads.tracing import new_trace
from services.chassis.errors import Definite, Indefinite, NotFound, ServiceError
from services.kv.client import KvClient

OPERATOR_WITHIN_S = 5.0


class Ended(NamedTuple):
    """One operation of the load: when it ended (ns of the history), what, whether answered."""

    at_ns: int
    f: str
    answered: bool
    took_ms: float


@dataclass(slots=True)
class Burst:
    """What became of requests that were sent at once: `answered` and `failed` in ms, by request."""

    answered: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


class CacheUsers:
    """Clients at `place`, with a client of each cache node of `nodes`."""

    def __init__(self, cluster: Cluster, place: str, nodes: Iterable[str], *, seed: int) -> None:
        self.cluster = cluster
        self.nodes = tuple(nodes)
        self.clients = {
            node: KvClient({node: cluster.address(place, node)}, random=Random(seed))
            for node in self.nodes
        }

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self.clients.values()))

    async def get(self, node: str, key: str, *, deadline_ms: int = 10_000) -> Any:
        """The value that `node` answers; None: there is none. Raises ServiceError."""
        try:
            client = self.clients[node]
            return (await client.get(key, consistency="cached", deadline_ms=deadline_ms)).value
        except NotFound:
            return None

    async def put(self, node: str, key: str, value: Any) -> int:
        """Write at `node`; the version (0: not in the store yet). Raises ServiceError."""
        return (await self.clients[node].put(key, value, deadline_ms=10_000)).version

    async def put_all(self, node: str, values: dict[str, Any], *, at_once: int = 16) -> None:
        """Write all of them. Raises ServiceError."""
        gate = asyncio.Semaphore(at_once)

        async def put(key: str) -> None:
            async with gate:
                await self.put(node, key, values[key])

        await asyncio.gather(*map(put, values))

    async def read_all(self, node: str, keys: Iterable[str], *, at_once: int = 16) -> Burst:
        """Read all of them, so many at a time."""
        gate, burst = asyncio.Semaphore(at_once), Burst()

        async def read(key: str) -> None:
            async with gate:
                await self._timed(burst, node, key, 10_000)

        await asyncio.gather(*map(read, keys))
        return burst

    async def write_on(
        self, node: str, name: str, acknowledged: list[str], *, pause_s: float
    ) -> None:
        """Write `<name>-0`, `<name>-1` … at `node` until it fails; the keys, once acknowledged."""
        while True:
            key = f"{name}-{len(acknowledged)}"
            try:
                await self.put(node, key, name)
            except ServiceError:
                return
            acknowledged.append(key)
            await asyncio.sleep(pause_s)

    async def burst(self, key: str, count: int, burst: Burst, *, deadline_ms: int) -> None:
        """Read `key` `count` times at once, spread over the nodes; `burst` is told as they end."""
        nodes = [self.nodes[number % len(self.nodes)] for number in range(count)]
        await asyncio.gather(*(self._timed(burst, node, key, deadline_ms) for node in nodes))

    async def _timed(self, burst: Burst, node: str, key: str, deadline_ms: int) -> None:
        began = time.perf_counter()
        try:
            value = await self.get(node, key, deadline_ms=deadline_ms)
        except ServiceError:
            burst.failed.append((time.perf_counter() - began) * 1000)
        else:
            burst.answered.append((time.perf_counter() - began) * 1000)
            burst.values.append(value)

    # --- what a node tells, and what an operator may do to it

    async def status(self, node: str) -> dict[str, Any]:
        """`/status` of a cache node; empty when it does not answer."""
        return await self.cluster.status(node, OPERATOR_WITHIN_S) or {}

    async def counts(self, *nodes: str) -> dict[str, int]:
        """`store_reads`, `hits` and `reads` of these nodes (default: all) together."""
        total = {"store_reads": 0, "hits": 0, "reads": 0}
        for node in nodes or self.nodes:
            told = (await self.status(node))["counters"]
            found = told["reads"]
            total["store_reads"] += told["store_reads"]
            total["hits"] += found["hit"] + found["negative_hit"] + found["dirty_hit"]
            total["reads"] += sum(found.values())
        return total

    async def operate(self, path: str, body: dict[str, Any] | None = None) -> bool:
        """`POST` to every node, round the links: True when all did it."""

        async def post(node: str) -> bool:
            url = f"http://{self.cluster.direct_address(node)}{path}"
            within = aiohttp.ClientTimeout(total=OPERATOR_WITHIN_S)
            try:
                async with self.cluster.session.post(
                    url, json=body, timeout=within, headers=AS_OPERATOR
                ) as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, TimeoutError, OSError):
                return False

        return all(await asyncio.gather(*map(post, self.nodes)))


class CacheLoad:
    """`reads_per_s` and `writes_per_s` on `keys` keys through all cache nodes, recorded."""

    def __init__(
        self,
        users: CacheUsers,
        *,
        seed: int,
        keys: int = 8,
        reads_per_s: float = 60,
        writes_per_s: float = 20,
        deadline_ms: int = 3_000,
    ) -> None:
        self.lateness_s = 0.0
        self.ended: list[Ended] = []
        self._users = users
        self._random = Random(seed)
        self._keys = [f"page-{number}" for number in range(keys)]
        self._reads_per_s, self._writes_per_s = reads_per_s, writes_per_s
        self._deadline_ms = deadline_ms
        self._processes = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._operations = Operations()

    async def start(
        self,
        _cluster: Cluster,
        recorder: Recorder,
        on_progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin to read and to write."""
        self._recorder, self._on_progress = recorder, on_progress
        self._tasks = [asyncio.create_task(self._write_on(key)) for key in self._keys]
        self._tasks.append(asyncio.create_task(self._read_on()))

    async def stop(self) -> None:
        """Stop sending; what is under way ends by its deadline. Raises what an operation raised."""
        reader = self._tasks.pop()
        reader.cancel()
        self._stopping = True
        await asyncio.gather(reader, return_exceptions=True)
        await self._operations.ended()
        await asyncio.gather(*self._tasks)
        self._operations.check()

    _stopping = False

    def since(self, start_ns: int) -> list[Ended]:
        """Operations that ended at `start_ns` or later."""
        return [each for each in self.ended if each.at_ns >= start_ns]

    async def _write_on(self, key: str) -> None:
        process, number = self._new_process(), 0
        pause_s = len(self._keys) / self._writes_per_s
        while not self._stopping:
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * pause_s)
            number += 1
            node, value = self._random.choice(self._users.nodes), f"{key}#{number}"

            async def put(node: str = node, value: str = value, trace: Any = None) -> Any:
                client = self._users.clients[node]
                await client.put(
                    key, value, deadline_ms=self._deadline_ms, headers=trace.headers
                )
                return value

            if not await self._operate(process, "write", key, value, node, put):
                process = self._new_process()

    async def _read_on(self) -> None:
        idle: list[int] = []
        async for late_s in arrivals(lambda: self._reads_per_s, self._random):
            self.lateness_s = max(self.lateness_s, late_s)
            self._operations.start(self._read(idle))

    async def _read(self, idle: list[int]) -> None:
        process = idle.pop() if idle else self._new_process()
        node, key = self._random.choice(self._users.nodes), self._random.choice(self._keys)

        async def get(trace: Any) -> Any:
            client = self._users.clients[node]
            try:
                reply = await client.get(
                    key, consistency="cached", deadline_ms=self._deadline_ms, headers=trace.headers
                )
            except NotFound:
                return None
            return reply.value

        await self._operate(process, "read", key, None, node, get)
        idle.append(process)

    async def _operate(
        self, process: int, f: str, key: str, value: Any, node: str, call: Any
    ) -> bool:
        """Call and record; False: nobody knows what became of it, and the process is spent."""
        trace = new_trace()
        handle = self._recorder.invoke(process, f, key, value, client="users", **trace.fields)
        began, answered, known = self._recorder.now_ns(), False, True
        try:
            self._recorder.ok(handle, value=await call(trace=trace), node=node)
            answered = True
        except Definite as error:
            self._recorder.fail(handle, error=str(error))
        except Indefinite as error:
            # A read that nobody answered changed nothing: it failed, whatever the cache did.
            known = f == "read"
            (self._recorder.fail if known else self._recorder.info)(handle, error=str(error))
        now = self._recorder.now_ns()
        self.ended.append(Ended(now, f, answered, (now - began) / 1e6))
        good = sum(each.answered for each in self.ended)
        self._on_progress(f"{good} answered · {len(self.ended) - good} failed")
        return known

    def _new_process(self) -> int:
        self._processes += 1
        return self._processes - 1
