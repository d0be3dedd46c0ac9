"""Clients that stand beside one node each: they ask it, and go where it sends them.

So it is known whom each operation asked, as in Jepsen's tests: availability in CAP's sense is that
of every node that lives. A client follows one redirect to a leader (it is definite that nothing
happened before); a node out of reach, or one that cannot serve, is an operation that failed.

Open loop, like the register workload: operations arrive whether or not earlier ones were answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from labs.harness.history import Recorder
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.open_loop import Operations, arrivals
from labs.harness.workloads.tracing import Trace, new_trace
from services.chassis.errors import Definite, Indefinite, NotFound, NotLeader
from services.kv.client import KvClient, Reply

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

KEYS = tuple(f"register-{number}" for number in range(5))


@dataclass(slots=True)
class Asked:
    """One operation that has ended; times in ns of the recorder's clock."""

    node: str
    f: str
    key: str
    answered: bool
    invoke_ns: int
    return_ns: int

    @property
    def took_ms(self) -> float:
        return (self.return_ns - self.invoke_ns) / 1e6


@dataclass(slots=True)
class _Beside:
    node: str
    place: str
    client: KvClient
    idle: list[int] = field(default_factory=list)


class NeighbourWorkload:
    """`rate_per_s` operations a second beside each node, half of them reads.

    `beside`: node → the place of its clients. `consistency`: what reads ask for.
    """

    def __init__(
        self,
        beside: Mapping[str, str],
        *,
        seed: int,
        consistency: str,
        rate_per_s: float = 30,
        deadline_ms: int = 1_500,
    ) -> None:
        self.beside = dict(beside)
        self.consistency = consistency
        self.rate_per_s = rate_per_s
        self.deadline_ms = deadline_ms
        self.ended: list[Asked] = []
        self.lateness_s = 0.0
        self._random = Random(seed)
        self._processes = self._values = 0
        self._dispatchers: list[asyncio.Task[None]] = []
        self._operations = Operations()
        self._clients: list[_Beside] = []
        self._under_way: dict[int, int] = {}  # process: when it began, ns
        self._on_progress: Callable[[str], None] = lambda text: None

    async def start(
        self,
        cluster: Cluster,
        recorder: Recorder,
        on_progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin."""
        self._recorder, self._on_progress = recorder, on_progress
        for node, place in self.beside.items():
            addresses = {other: cluster.address(place, other) for other in cluster.nodes}
            client = KvClient(addresses, random=Random(self._random.random()))
            self._clients.append(_Beside(node, place, client))
            work = self._dispatch(self._clients[-1], Random(self._random.random()))
            self._dispatchers.append(asyncio.create_task(work))

    async def stop(self) -> None:
        """Stop sending, let what is under way end by its deadline, close the connections."""
        for task in self._dispatchers:
            task.cancel()
        await asyncio.gather(*self._dispatchers, return_exceptions=True)
        await self._operations.ended()
        await asyncio.gather(*(beside.client.close() for beside in self._clients))
        self._operations.check()

    def since(self, begin_ns: int, node: str | None = None, f: str | None = None) -> list[Asked]:
        """What was asked at `begin_ns` or later and has ended, of one node or all."""
        return [
            each
            for each in self.ended
            if each.invoke_ns >= begin_ns
            and (node is None or each.node == node)
            and (f is None or each.f == f)
        ]

    def answered(self, node: str, begin_ns: int = 0, f: str | None = None) -> int:
        """How many operations beside `node`, asked since then, were answered."""
        return sum(each.answered for each in self.since(begin_ns, node, f))

    def under_way(self, begin_ns: int, end_ns: int) -> int:
        """How many that were asked from `begin_ns` on, and before `end_ns`, have not ended."""
        return sum(begin_ns <= each < end_ns for each in self._under_way.values())

    async def _dispatch(self, beside: _Beside, random: Random) -> None:
        async for late_s in arrivals(lambda: self.rate_per_s, random):
            self.lateness_s = max(self.lateness_s, late_s)
            self._operations.start(self._operate(beside, random))

    async def _operate(self, beside: _Beside, random: Random) -> None:
        process = beside.idle.pop() if beside.idle else self._new_process()
        key, f = random.choice(KEYS), random.choice(("read", "write"))
        value = None if f == "read" else self._new_value()
        began, trace = self._recorder.now_ns(), new_trace()
        handle = self._recorder.invoke(
            process, f, key, value, client=beside.place, asked=beside.node, **trace.fields
        )
        self._under_way[process] = began
        answered = retired = False
        try:
            reply = await self._ask(beside, key, value, trace)
            shown = reply.value if f == "read" else value
            self._recorder.ok(handle, value=shown, version=reply.version, node=reply.node)
            answered = True
        except NotFound:
            self._recorder.ok(handle, value=None)
            answered = True
        except Definite as error:
            self._recorder.fail(handle, error=str(error))
        except Indefinite as error:
            # A read that nobody answered changed nothing: it failed, whatever the server did.
            retired = f != "read"
            (self._recorder.info if retired else self._recorder.fail)(handle, error=str(error))
        if not retired:
            beside.idle.append(process)
        del self._under_way[process]
        ended = Asked(beside.node, f, key, answered, began, self._recorder.now_ns())
        self.ended.append(ended)
        self._on_progress(f"{sum(each.answered for each in self.ended[-200:])} of the last "
                          f"{len(self.ended[-200:])} answered")  # fmt: skip

    async def _ask(self, beside: _Beside, key: str, value: Any, trace: Trace) -> Reply:
        """At the node, then where it points to."""
        node = beside.node
        for last in (False, True):
            try:
                if value is None:
                    return await beside.client.get(
                        key, consistency=self.consistency, node=node,
                        deadline_ms=self.deadline_ms, headers=trace.headers,
                    )  # fmt: skip
                return await beside.client.put(
                    key, value, node=node, deadline_ms=self.deadline_ms, headers=trace.headers
                )
            except NotLeader as elsewhere:
                if last or elsewhere.leader not in beside.client.addresses:
                    raise
                node = elsewhere.leader
        raise AssertionError("the second answer returns or raises")

    def _new_process(self) -> int:
        self._processes += 1
        return self._processes - 1

    def _new_value(self) -> int:
        self._values += 1
        return self._values


async def of_both_sides(
    stage: Stage, clients: NeighbourWorkload, since_ns: int, *sides: list[str], all_ended: bool
) -> list[list[Asked]]:
    """What was asked beside the nodes of each side since then and until now, and has ended.

    `all_ended`: once all of it has. Else who waits for an answer that never comes is not counted.
    """
    now_ns = stage.now_ns()
    if all_ended:
        await stage.require(
            lambda: not clients.under_way(since_ns, now_ns),
            within_s=clients.deadline_ms / 1000 + 10,
            what="all that was asked has ended",
        )
    return [
        [each for node in side for each in clients.since(since_ns, node) if each.invoke_ns < now_ns]
        for side in sides
    ]


def unaware(readers: list[Asked], writers: list[Asked]) -> int:
    """Reads on one side of a cut that began after a write on the other side was acknowledged, and
    after any of that key on their own: whatever they were told, it was not that."""

    def last(done: list[Asked], read: Asked) -> int:
        return max(
            (
                each.return_ns
                for each in done
                if each.f == "write"
                and each.answered
                and each.key == read.key
                and each.return_ns < read.invoke_ns
            ),
            default=0,
        )

    return sum(
        read.f == "read" and read.answered and last(writers, read) > last(readers, read)
        for read in readers
    )
