"""Sessions that move from node to node, every operation of theirs in the history.

A session is a process of the history: one operation at a time, in its order. What it has seen goes
with it as the store's token (`services.kv.client.session.KvSession`), if its level has one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from random import Random
from typing import Any, NamedTuple

from labs.harness.history import Recorder
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.tracing import new_trace
from services.chassis.errors import Definite, Indefinite, NotFound, NotLeader
from services.kv.client import KvClient, Reply
from services.kv.client.session import KvSession


class Levels(NamedTuple):
    """What reads and writes ask for (`?consistency=`); None: nothing, the store's own default."""

    read: str
    write: str | None


class Told(NamedTuple):
    """How an operation ended: its type in the history, and for a read the value."""

    type: str
    value: Any = None

    @property
    def ok(self) -> bool:
        return self.type == "ok"


class Sessions:
    """Begins sessions at one `place`; an async context manager."""

    def __init__(
        self, cluster: Cluster, recorder: Recorder, *, place: str, seed: int | str, deadline_ms: int
    ) -> None:
        addresses = {node: cluster.address(place, node) for node in cluster.nodes}
        self.client = KvClient(addresses, random=Random(seed))
        self.recorder, self.place, self.deadline_ms = recorder, place, deadline_ms
        self.numbers = itertools.count(1)  # for keys that nobody has used

    async def __aenter__(self) -> Sessions:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    def begin(self, levels: Levels, **extra: Any) -> Session:
        """A new session. `extra`: what the history says of each of its operations besides."""
        return Session(self, levels, extra)

    async def look(self, key: str, nodes: Iterable[str], levels: Levels) -> bool:
        """Has each of `nodes` something of `key`? Nobody's session, and not in the history."""
        for node in nodes:
            try:
                await self.client.get(
                    key, consistency=levels.read, node=node, deadline_ms=self.deadline_ms
                )
            except (Definite, Indefinite):
                return False
        return True


class Session:
    """One session."""

    def __init__(self, sessions: Sessions, levels: Levels, extra: dict[str, Any]) -> None:
        self._sessions, self._levels, self._extra = sessions, levels, extra
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.process = self._sessions.recorder.new_process()
        levels = self._levels
        self._session = KvSession(self._sessions.client, read=levels.read, write=levels.write)

    async def read(self, key: str, node: str) -> Told:
        """Read `key` at `node`, or where that points to."""
        return await self._operate("read", key, None, node)

    async def write(self, key: str, value: Any, node: str) -> Told:
        """Write `key` at `node`, or where that points to."""
        return await self._operate("write", key, value, node)

    async def _operate(self, f: str, key: str, value: Any, node: str) -> Told:
        recorder, trace = self._sessions.recorder, new_trace()
        handle = recorder.invoke(
            self.process, f, key, value,
            client=self._sessions.place, asked=node, **trace.fields, **self._extra,
        )  # fmt: skip
        try:
            reply = await self._ask(key, value, node, trace.headers)
        except NotFound:
            recorder.ok(handle, value=None, node=self._answering)
            return Told("ok")
        except Definite as error:
            recorder.fail(handle, error=str(error))
            return Told("fail")
        except Indefinite as error:
            if f == "read":  # it changed nothing, whatever the server did
                recorder.fail(handle, error=str(error))
                return Told("fail")
            recorder.info(handle, error=str(error))
            self._begin_anew()
            return Told("info")
        shown = reply.value if f == "read" else value
        recorder.ok(handle, value=shown, version=reply.version, node=reply.node)
        return Told("ok", shown)

    async def _ask(self, key: str, value: Any, node: str, headers: dict[str, str]) -> Reply:
        for last in (False, True):
            self._answering = node
            how: dict[str, Any] = {
                "node": node, "headers": headers, "deadline_ms": self._sessions.deadline_ms,
            }  # fmt: skip
            try:
                if value is None:
                    return await self._session.get(key, **how)
                return await self._session.put(key, value, **how)
            except NotLeader as elsewhere:
                if last or elsewhere.leader not in self._sessions.client.addresses:
                    raise
                node = elsewhere.leader
        raise AssertionError("the second answer returns or raises")
