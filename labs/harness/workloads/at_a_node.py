"""Operations that a scenario asks for, one by one, each at the node that it names, and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labs.harness.history import Recorder
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.tracing import new_trace
from services.chassis.errors import Definite, Indefinite, NotFound
from services.kv.client import KvClient


@dataclass(slots=True)
class Answer:
    """What came of one operation. `version` is 0 when the key is not there, or without an answer.

    `ok`: it was answered; the times are ns of the recorder's clock. `trace_id` is that of its lines
    in the nodes' telemetry.
    """

    ok: bool
    value: Any
    version: int
    invoke_ns: int
    return_ns: int
    trace_id: str


class AtANode:
    """A client at `place` that follows no hint. Implements `stage.Workload`."""

    lateness_s = 0.0  # it has no plan to be late against

    def __init__(self, place: str, *, deadline_ms: int = 10_000) -> None:
        self.place, self.deadline_ms = place, deadline_ms
        self.done = 0
        self._idle: list[int] = []
        self._processes = 0

    async def start(
        self,
        cluster: Cluster,
        recorder: Recorder,
        on_progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin."""
        self._recorder, self._on_progress = recorder, on_progress
        self._client = KvClient({node: cluster.address(self.place, node) for node in cluster.nodes})

    async def stop(self) -> None:
        await self._client.close()

    async def put(self, node: str, key: str, value: Any, consistency: str | None = None) -> Answer:
        """Write there; `consistency` as in KvClient.put."""
        return await self._operate(node, "write", key, value, consistency)

    async def get(self, node: str, key: str, consistency: str = "eventual") -> Answer:
        """Read there."""
        return await self._operate(node, "read", key, None, consistency)

    async def _operate(
        self, node: str, f: str, key: str, value: Any, consistency: str | None
    ) -> Answer:
        process = self._idle.pop() if self._idle else self._processes
        self._processes = max(self._processes, process + 1)
        recorder, client, trace = self._recorder, self._client, new_trace()
        began, version, ok, ended = recorder.now_ns(), 0, True, True
        handle = recorder.invoke(process, f, key, value, client=self.place, asked=node,
                                 **trace.fields)  # fmt: skip
        how: dict[str, Any] = {
            "node": node, "headers": trace.headers, "deadline_ms": self.deadline_ms
        }  # fmt: skip
        try:
            if f == "write":
                reply = await client.put(key, value, consistency=consistency, **how)
            else:
                reply = await client.get(key, consistency=consistency or "eventual", **how)
                value = reply.value
            version = reply.version
            recorder.ok(handle, value=value, version=version, node=node)
        except NotFound:
            recorder.ok(handle, value=None)
        except (Definite, Indefinite) as error:
            ok, ended = False, f == "read" or isinstance(error, Definite)
            (recorder.fail if ended else recorder.info)(handle, error=str(error))
        if ended:
            self._idle.append(process)
        self.done += 1
        self._on_progress(f"{self.done} operations")
        return Answer(ok, value, version, began, recorder.now_ns(), trace.trace_id)
