"""The register workload: reads, writes, compare-and-sets on hot keys; other keys written once.

Open loop: operations arrive at a given rate whether or not earlier ones have been answered, as
users do; a closed loop would go quiet in a blackout and so hide it (coordinated omission). Clients
stand at *places* (`c1`, `c2`), each with links of its own, so that a cut can part them.

- Values are unique (a counter over the whole run), so a read names the write that it saw.
- Keys `once-…` are written exactly once: whether an acknowledged write was lost is then decided by
  one final read, with no judgement about what may have overwritten it.
- A process is logically single-threaded. After `info` nobody knows whether its operation is still
  under way, so the process retires and a new id takes its place (Jepsen).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from labs.harness.history import Recorder
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.open_loop import Operations, arrivals
from labs.harness.workloads.tracing import new_trace
from services.chassis.errors import Definite, Indefinite, NotFound, PreconditionFailed
from services.kv.client import KvClient, Reply

Call = Callable[[dict[str, str]], Awaitable[Reply]]


@dataclass(slots=True)
class Done:
    """One completed operation as the load saw it; times in ns of the recorder's clock."""

    f: str
    type: str
    invoke_ns: int
    return_ns: int
    node: str | None


@dataclass(slots=True)
class Place:
    """The clients at one place: their connection pool, their processes, what came of their work."""

    name: str
    client: KvClient
    idle: list[int] = field(default_factory=list)
    in_flight: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    done: list[Done] = field(default_factory=list)
    lateness_s: float = 0.0


class RegisterWorkload:
    """`rate_per_s` operations a second from each place, to `nodes` (default: all of the cluster).

    `in_flight_max` bounds what a blackout piles up at one place: an arrival over it is not sent and
    is counted as `shed`. Few, for each goes round the nodes until its deadline: with a hundred of
    them at each of two places a busy machine had no time left for an election, and the outage that
    kept them waiting never ended.
    """

    def __init__(
        self,
        *,
        places: tuple[str, ...],
        seed: int,
        rate_per_s: float = 120,
        keys: int = 5,
        deadline_ms: int = 300,
        in_flight_max: int = 20,
        nodes: Sequence[str] = (),
    ) -> None:
        self.places_wanted = places
        self.nodes = nodes
        self.random = Random(seed)
        self.rate_per_s = rate_per_s
        self.keys = [f"register-{number}" for number in range(keys)]
        self.deadline_ms = deadline_ms
        self.in_flight_max = in_flight_max
        self.places: dict[str, Place] = {}
        self.once: list[str] = []
        self._last_seen: dict[tuple[int, str], tuple[Any, int]] = {}
        self._values = 0
        self._dispatchers: list[asyncio.Task[None]] = []
        self._operations = Operations()
        self._on_progress: Callable[[str], None] = lambda text: None

    async def start(
        self,
        cluster: Cluster,
        recorder: Recorder,
        on_progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin. `on_progress` is given a line that counts what the load does."""
        assert not self._dispatchers, "a workload starts once"
        self.recorder = recorder
        self._on_progress = on_progress
        for name in self.places_wanted:
            addresses = self._addresses(cluster, name)
            place = Place(name, KvClient(addresses, random=Random(self.random.random())))
            self.places[name] = place
            arrivals = Random(self.random.random())
            self._dispatchers.append(asyncio.create_task(self._dispatch(place, arrivals)))

    async def stop(self) -> None:
        """Stop sending, let what is under way end by its deadline, close the connections."""
        for task in self._dispatchers:
            task.cancel()
        await asyncio.gather(*self._dispatchers, return_exceptions=True)
        await self._operations.ended()
        await asyncio.gather(*(place.client.close() for place in self.places.values()))
        self._operations.check()

    @property
    def lateness_s(self) -> float:
        """How late the latest operation was sent, against its plan: the load's own fault."""
        return max((place.lateness_s for place in self.places.values()), default=0.0)

    def acknowledged(self) -> int:
        """How many operations were answered `ok` so far."""
        return sum(place.counts["ok"] for place in self.places.values())

    def writes(self, place: str, *, since_ns: int = 0) -> int:
        """How many writes sent at `since_ns` or later have been acknowledged at `place`."""
        return sum(op.type == "ok" and op.f != "read" for op in self.between(place, since_ns))

    def between(self, place: str, start_ns: int, end_ns: int | None = None) -> list[Done]:
        """Operations at `place` sent at `start_ns` or later and ended by `end_ns` (now)."""
        done = self.places[place].done
        return [
            op
            for op in done
            if op.invoke_ns >= start_ns and (end_ns is None or op.return_ns <= end_ns)
        ]

    def _addresses(self, cluster: Cluster, place: str) -> dict[str, str]:
        return {node: cluster.address(place, node) for node in self.nodes or cluster.nodes}

    async def final_reads(self, cluster: Cluster, place: str, *, within_s: float) -> None:
        """Read every key once more, from `place`, after all other operations have ended."""
        assert not self._operations, "final reads come last"
        gate = asyncio.Semaphore(16)
        client = KvClient(self._addresses(cluster, place), random=self.random)

        async def read(key: str) -> None:
            async with gate:
                await self._final_read(client, key, place, within_s)

        try:
            await asyncio.gather(*(read(key) for key in [*self.keys, *self.once]))
        finally:
            await client.close()

    async def _final_read(self, client: KvClient, key: str, place: str, within_s: float) -> None:
        process, trace = self.recorder.new_process(), new_trace()
        handle = self.recorder.invoke(
            process, "read", key, None, client=place, final=True, **trace.fields
        )
        deadline_ms = int(within_s * 1000)
        try:
            reply = await client.get(key, deadline_ms=deadline_ms, headers=trace.headers)
        except NotFound:
            self.recorder.ok(handle, value=None)
        except (Definite, Indefinite) as error:
            self.recorder.fail(handle, error=str(error))
        else:
            self.recorder.ok(handle, value=reply.value, **_answer(reply))

    async def _dispatch(self, place: Place, random: Random) -> None:
        async for late_s in arrivals(lambda: self.rate_per_s, random):
            place.lateness_s = max(place.lateness_s, late_s)
            if place.in_flight >= self.in_flight_max:
                place.counts["shed"] += 1
                continue
            self._operations.start(self._operate(place, random))

    async def _operate(self, place: Place, random: Random) -> None:
        process = place.idle.pop() if place.idle else self.recorder.new_process()
        f, key, value, call = self._draw(place, process, random)
        place.in_flight += 1
        invoke_ns, trace = self.recorder.now_ns(), new_trace()
        handle = self.recorder.invoke(process, f, key, value, client=place.name, **trace.fields)
        node, kind = None, "info"
        try:
            reply = await call(trace.headers)
            node, kind = reply.node, "ok"
            shown = reply.value if f == "read" else value
            self._last_seen[process, key] = (
                reply.value if f == "read" else _new(f, value),
                reply.version,
            )
            self.recorder.ok(handle, value=shown, **_answer(reply))
        except NotFound as absent:
            kind = "ok" if f == "read" else "fail"
            if f == "read":
                self.recorder.ok(handle, value=None)
            else:
                self.recorder.fail(handle, error=str(absent))
        except PreconditionFailed as refused:
            kind = "fail"
            self.recorder.fail(handle, error=str(refused), refused=True)  # available, and said no
        except Definite as error:
            kind = "fail"
            self.recorder.fail(handle, error=str(error))
        except Indefinite as error:
            # A read that nobody answered changed nothing: it failed, whatever the server did.
            kind = "fail" if f == "read" else "info"
            (self.recorder.fail if f == "read" else self.recorder.info)(handle, error=str(error))
        finally:
            place.in_flight -= 1
            place.counts[kind] += 1
            place.done.append(Done(f, kind, invoke_ns, self.recorder.now_ns(), node))
            if kind != "info":
                place.idle.append(process)
            self._report()

    def _draw(self, place: Place, process: int, random: Random) -> tuple[str, str, Any, Call]:
        """Choose an operation. A compare-and-set expects what this process itself saw last."""
        client, deadline_ms, dice = place.client, self.deadline_ms, random.random()
        key = random.choice(self.keys)
        seen = self._last_seen.get((process, key))
        if dice < 0.35:
            return "read", key, None, lambda headers: client.get(
                key, deadline_ms=deadline_ms, headers=headers)  # fmt: skip
        value = self._new_value()
        if dice < 0.55:
            key = f"once-{len(self.once)}"
            self.once.append(key)
        elif dice < 0.70 and seen is not None:
            expected, version = seen
            return "cas", key, [expected, value], lambda headers: client.cas(
                key, value, version=version, deadline_ms=deadline_ms, headers=headers)  # fmt: skip
        return "write", key, value, lambda headers: client.put(
            key, value, deadline_ms=deadline_ms, headers=headers)  # fmt: skip

    def _new_value(self) -> int:
        self._values += 1
        return self._values

    def _report(self) -> None:
        total: Counter[str] = Counter()
        for place in self.places.values():
            total += place.counts
        self._on_progress(
            f"{total['ok']} acknowledged · {total['fail']} refused · {total['info']} unknown"
        )


def _new(f: str, value: Any) -> Any:
    return value[1] if f == "cas" else value


def _answer(reply: Reply) -> dict[str, Any]:
    """What the answer says beside the value. The ids are in the call already."""
    return {"version": reply.version, "node": reply.node}
