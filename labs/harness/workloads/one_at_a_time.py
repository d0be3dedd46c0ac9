"""One client that sends an operation when the one before has ended: what a single one costs.

Under load, operations share messages and writes to disk, and wait for each other. What one of them
costs by itself (messages, round trips, time) shows only when it is alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Literal

from labs.harness.history import Recorder
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.register import Done
from labs.harness.workloads.tracing import new_trace
from services.chassis.errors import Definite, Indefinite, NotFound
from services.kv.client import KvClient, Reply

KEY = "register-0"  # of the register workload's, which reads it at the end
FIRST = 1_000_000  # processes and values beyond those of any workload beside this one
PAUSE_S = 0.002  # after an error, so that a refusal at once makes no busy loop


class OneAtATime:
    """Writes `register-0`, or reads it, from `place`: set `f` to change over."""

    lateness_s = 0.0  # it has no plan to be late against

    def __init__(self, place: str, *, seed: int, deadline_ms: int = 300) -> None:
        self.f: Literal["write", "read"] = "write"
        self.done: list[Done] = []
        self._place, self._deadline_ms, self._random = place, deadline_ms, Random(seed)
        self._process, self._value = FIRST, FIRST
        self._task: asyncio.Task[None] | None = None

    async def start(
        self,
        cluster: Cluster,
        recorder: Recorder,
        on_progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin."""
        addresses = {node: cluster.address(self._place, node) for node in cluster.nodes}
        self._client = KvClient(addresses, random=self._random)
        self._recorder, self._on_progress = recorder, on_progress
        self._task = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            ended = (await asyncio.gather(self._task, return_exceptions=True))[0]
            await self._client.close()
            if not isinstance(ended, asyncio.CancelledError | None):
                raise ended

    def acknowledged(self, f: str, *, since_ns: int = 0) -> list[Done]:
        """The operations of this kind sent at `since_ns` or later that were answered `ok`."""
        return [
            op for op in self.done if op.f == f and op.type == "ok" and op.invoke_ns >= since_ns
        ]

    async def _go_on(self) -> None:
        while True:
            await self._operate()
            if self.done[-1].type != "ok":
                await asyncio.sleep(PAUSE_S)
            self._on_progress(f"{len(self.done)} operations, one at a time")

    async def _operate(self) -> None:
        f, recorder, trace = self.f, self._recorder, new_trace()
        self._value += f == "write"
        invoke_ns = recorder.now_ns()
        handle = recorder.invoke(self._process, f, KEY, self._value if f == "write" else None,
                                 client=self._place, **trace.fields)  # fmt: skip
        kind, node = "info", None
        try:
            reply = await self._call(f, trace.headers)
            kind, node = "ok", reply.node
            recorder.ok(handle, value=reply.value if f == "read" else self._value,
                        version=reply.version, node=node)  # fmt: skip
        except NotFound:
            kind = "ok"
            recorder.ok(handle, value=None)
        except (Definite, Indefinite) as error:
            kind = "fail" if f == "read" or isinstance(error, Definite) else "info"
            (recorder.fail if kind == "fail" else recorder.info)(handle, error=str(error))
        finally:
            self.done.append(Done(f, kind, invoke_ns, recorder.now_ns(), node))
            self._process += kind == "info"

    async def _call(self, f: str, headers: dict[str, str]) -> Reply:
        if f == "read":
            return await self._client.get(KEY, deadline_ms=self._deadline_ms, headers=headers)
        return await self._client.put(
            KEY, self._value, deadline_ms=self._deadline_ms, headers=headers
        )
