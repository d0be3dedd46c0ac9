"""Writes to a node of the store that the caller names, whatever it answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

from labs.harness.history import Recorder
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.tracing import new_trace
from services.chassis.errors import Definite, Indefinite
from services.kv.client import KvClient


class Proposals:
    """Sends to one node from `place`; an answer that names another leader is not followed.

    To be used as an async context manager.
    """

    def __init__(self, cluster: Cluster, recorder: Recorder, place: str, store: list[str]) -> None:
        self._recorder = recorder
        self._place = place
        addresses = {node: cluster.address(place, node) for node in store}
        self._client = KvClient(addresses, random=Random(0))
        self._tasks: list[asyncio.Task[str]] = []
        self._sent = 0

    async def __aenter__(self) -> Proposals:
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    def send(self, node: str, count: int, *, deadline_ms: int) -> None:
        """`count` writes to `node` at once, each of a key of its own."""
        for _ in range(count):
            self._sent += 1
            self._tasks.append(asyncio.create_task(self._write(node, self._sent, deadline_ms)))

    async def ended(self) -> Counter[str]:
        """Wait until all that was sent is answered: how many were `ok`, or which error they got.

        Counts what was sent since it was called last.
        """
        answers = Counter(await asyncio.gather(*self._tasks))
        self._tasks.clear()
        return answers

    async def _write(self, node: str, number: int, deadline_ms: int) -> str:
        key, trace = f"proposal-{number}", new_trace()
        handle = self._recorder.invoke(
            number, "write", key, number, client=self._place, **trace.fields
        )
        try:
            reply = await self._client.put(
                key, number, node=node, deadline_ms=deadline_ms, headers=trace.headers
            )
        except Definite as error:
            self._recorder.fail(handle, error=str(error))
            return error.slug
        except Indefinite as error:
            self._recorder.info(handle, error=str(error))
            return error.slug
        self._recorder.ok(handle, version=reply.version, node=reply.node)
        return "ok"
