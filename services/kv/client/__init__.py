"""A client of the store that never hides what it does not know.

Every error is `Definite` (it did not happen) or `Indefinite` (it may have, it may happen yet);
library exceptions are mapped in one place (`http_client.exchange`). So nothing is retried behind
the caller's back: a second attempt of a lost PUT may overwrite what another client wrote in
between. Retries are off unless asked for, and even then only of writes that carry an idempotency
key (and reads).

What *is* followed without asking is the way to the leader, because a refusal is definite: 421 with
a hint, a refused connection, 503 for "no leader is known" when no node was pinned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import msgspec
import tenacity

from services.chassis.errors import (
    CircuitOpen,
    Definite,
    Indefinite,
    KeyReused,
    NotFound,
    NotLeader,
    PreconditionFailed,
    ServiceError,
    Unavailable,
    from_problem,
)
from services.chassis.http_client import HttpClient
from services.resilience.circuit_breaker import CircuitBreaker

DataType = Literal["counters", "sets", "sequences"]
SESSION_TOKEN = "Session-Token"
RETRY_WAIT_MIN_S, RETRY_WAIT_MAX_S = 0.010, 0.200


class Reply(NamedTuple):
    """A success: the value read (None for writes), the version, and who answered.

    Of a store without a leader, too: `siblings`, the concurrent values read; `context`, to be sent
    with the write that replaces them; `elements`, the ids of what is in a sequence.
    `session_token`: for the next request of the same session (see `KvSession`).
    """

    value: Any
    version: int
    node: str
    request_id: str
    trace_id: str
    siblings: Sequence[Any] = ()
    context: Mapping[str, int] | None = None
    elements: Sequence[str] = ()
    session_token: str = ""


class KvClient(HttpClient):
    """Talks to the store at `addresses` (node → "host:port").

    To be used as an async context manager, or closed with `close`.

    Args:
        random: spreads first choices and waits.
        retries: further attempts after an error; 0 (the default) means none. Only reads and
            writes with an idempotency key are retried.
        breakers: a circuit breaker per node; one that is open raises CircuitOpen, nothing is sent.
        hops_max: nodes asked on the way to the leader before giving up (default: 3 per node).
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        *,
        random: Random | None = None,
        retries: int = 0,
        breakers: Mapping[str, CircuitBreaker] | None = None,
        hops_max: int | None = None,
    ) -> None:
        super().__init__()
        if not addresses:
            raise ValueError("a client needs at least one node")
        self.addresses = dict(addresses)
        self.breakers = breakers or {}
        self._random = random or Random()
        self._retries = retries
        self._hops_max = hops_max or 3 * len(self.addresses)
        self._leader: str | None = None

    # ------------------------------------------------------------------ operations

    async def get(
        self,
        key: str,
        *,
        consistency: str = "linearizable",
        deadline_ms: int = 2_000,
        node: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Read a key. Raises NotFound, or what `put` raises.

        `node` pins the request: no hint is followed. `headers`: traceparent, X-Request-Id, ….
        """
        path = f"{_path(key)}?consistency={quote(consistency)}"
        return await self._operate("GET", path, None, dict(headers or {}), deadline_ms, node, True)

    async def put(
        self,
        key: str,
        value: Any,
        *,
        if_match: int | str | None = None,
        if_none_match: bool = False,
        idempotency_key: str | None = None,
        context: Mapping[str, int] | None = None,
        consistency: str | None = None,
        deadline_ms: int = 2_000,
        node: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Write a key; `if_match` is a version or "*", `if_none_match` wants the key absent.

        `context`: what a read of a store without a leader gave, which the write replaces.
        `consistency`: by default what the store does by itself.

        Raises PreconditionFailed(value, version), NotLeader, Unavailable, BadRequest, CircuitOpen
        (definite), DeadlineExceeded, ConnectionLost, InternalError (indefinite).
        """
        seen = {} if context is None else {"context": context}
        body = msgspec.json.encode({"value": value, **seen})
        sent = _write_headers(headers, if_match, if_none_match, idempotency_key)
        sent["Content-Type"] = "application/json"
        safe = idempotency_key is not None
        path = _path(key) + (f"?consistency={quote(consistency)}" if consistency else "")
        return await self._operate("PUT", path, body, sent, deadline_ms, node, safe)

    async def delete(
        self,
        key: str,
        *,
        if_match: int | str | None = None,
        idempotency_key: str | None = None,
        deadline_ms: int = 2_000,
        node: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Remove a key. Raises NotFound, or what `put` raises."""
        sent = _write_headers(headers, if_match, False, idempotency_key)
        safe = idempotency_key is not None
        return await self._operate("DELETE", _path(key), None, sent, deadline_ms, node, safe)

    async def cas(
        self,
        key: str,
        value: Any,
        *,
        version: int | None,
        idempotency_key: str | None = None,
        deadline_ms: int = 2_000,
        node: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Write `value` if the key is at `version` (None: if it is absent). Raises as `put`."""
        return await self.put(
            key,
            value,
            if_match=version,
            if_none_match=version is None,
            idempotency_key=idempotency_key,
            deadline_ms=deadline_ms,
            node=node,
            headers=headers,
        )

    async def read_data(
        self,
        kind: DataType,
        key: str,
        *,
        consistency: str = "quorum",
        deadline_ms: int = 2_000,
        node: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Read a data type of a store without a leader. Raises as `get`."""
        path = f"{_path(key, kind)}?consistency={quote(consistency)}"
        return await self._operate("GET", path, None, dict(headers or {}), deadline_ms, node, True)

    async def update(
        self,
        kind: DataType,
        key: str,
        update: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        deadline_ms: int = 2_000,
        node: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Update it: `{"increment": 1}`, `{"add": x}`, `{"remove": x}`, `{"delete": id}` or
        `{"insert": x, "after": id}` (services/kv/data_types.py). The reply has its value then.

        An increment or insert is retried only with an idempotency key, an add or removal never: it
        would undo what somebody else has done in between. A deletion asks for no more when it is
        repeated. Raises NotLeader, Unavailable, BadRequest, NotFound (an element)
        (definite), DeadlineExceeded, ConnectionLost, InternalError (indefinite).
        """
        sent = _write_headers(headers, None, False, idempotency_key)
        sent["Content-Type"] = "application/json"
        safe = idempotency_key is not None or "delete" in update
        body = msgspec.json.encode(update)
        return await self._operate("POST", _path(key, kind), body, sent, deadline_ms, node, safe)

    async def status(self, node: str, *, deadline_ms: int = 1_000) -> dict[str, Any]:
        """`/status` of one node."""
        deadline = asyncio.get_running_loop().time() + deadline_ms / 1000
        _, _, document = await self._send(node, "GET", "/status", None, {}, deadline)
        assert isinstance(document, dict), document
        return document

    # ------------------------------------------------------------------ the way to an answer

    async def _operate(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        deadline_ms: int,
        node: str | None,
        safe_to_retry: bool,
    ) -> Reply:
        deadline = asyncio.get_running_loop().time() + deadline_ms / 1000

        lost: Indefinite | None = None

        async def attempt() -> Reply:
            nonlocal lost
            try:
                if node is not None:
                    return await self._ask(node, method, path, body, headers, deadline)
                return await self._ask_leader(method, path, body, headers, deadline)
            except Indefinite as exc:
                lost = exc
                raise

        if not self._retries or not safe_to_retry:
            return await attempt()
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((Indefinite, NotLeader, Unavailable)),
            stop=tenacity.stop_after_attempt(self._retries + 1)
            | tenacity.stop_after_delay(deadline_ms / 1000),
            wait=tenacity.wait_random_exponential(
                multiplier=RETRY_WAIT_MIN_S, max=RETRY_WAIT_MAX_S
            ),
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except Definite as error:
            # That the last attempt did not happen says nothing about the one that was lost. What a
            # log's state machine answers does: there the idempotency key makes one of the two. Of
            # a data type each node answers by what it knows itself.
            by_key = (NotFound, PreconditionFailed, KeyReused)
            if lost is None or (method != "POST" and isinstance(error, by_key)):
                raise
            raise lost from None

    async def _ask_leader(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], deadline: float
    ) -> Reply:
        """Follow hints to the leader.

        A hint is tried at once, but only the first time it names a node: two nodes that each
        believe in the other would send us to and fro until the deadline. After that the choice is
        random, with a short wait in which an election may end.
        """
        target = self._leader or self._random.choice(list(self.addresses))
        hinted: set[str] = set()
        loop = asyncio.get_running_loop()
        for hop in range(1, self._hops_max + 1):
            try:
                result = await self._ask(target, method, path, body, headers, deadline)
            except (NotLeader, Unavailable) as exc:
                self._leader = None
                alone = len(self.addresses) == 1
                if hop == self._hops_max or (alone and isinstance(exc, CircuitOpen)):
                    raise
                hint = getattr(exc, "leader", None)
                if hint in self.addresses and hint != target and hint not in hinted:
                    hinted.add(hint)
                    target = hint
                    continue
                wait_s = self._random.uniform(0.5, 1.0) * min(0.1, 0.01 * 2 ** (hop // 2))
                if loop.time() + wait_s >= deadline:
                    raise
                await asyncio.sleep(wait_s)
                others = [node for node in self.addresses if node != target]
                target = self._random.choice(others or [target])
            except Indefinite:
                # The leader may be gone or cut off: look around next time.
                self._leader = None
                raise
            else:
                self._leader = target
                return result
        raise AssertionError("the last hop raises or returns")

    async def _ask(
        self,
        node: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        deadline: float,
    ) -> Reply:
        """One request to one node, through its circuit breaker."""
        breaker = self.breakers.get(node)
        loop = asyncio.get_running_loop()
        if breaker is not None and not breaker.allow(loop.time()):
            raise CircuitOpen(f"{node} has not answered; asked again later")
        try:
            answer_headers, _, document = await self._send(
                node, method, path, body, headers, deadline
            )
        except ServiceError as exc:
            if breaker is not None:
                # Any answer but a 5xx shows that the node lives and can be reached.
                failed = isinstance(exc, Indefinite | Unavailable)
                (breaker.record_failure if failed else breaker.record_success)(loop.time())
            raise
        if breaker is not None:
            breaker.record_success(loop.time())
        return Reply(
            document.get("value"),
            document["version"],
            node,
            answer_headers.get("X-Request-Id", ""),
            answer_headers.get("traceparent", "")[3:35],
            document.get("siblings", ()),
            document.get("context"),
            document.get("elements", ()),
            answer_headers.get(SESSION_TOKEN, ""),
        )

    async def _send(
        self,
        node: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        deadline: float,
    ) -> tuple[Mapping[str, str], int, Any]:
        url = f"http://{self.addresses[node]}{path}"
        answer = await self.exchange(
            node, method, url, body=body, headers=headers, deadline=deadline
        )
        if answer.status != 200 or not isinstance(answer.document, dict):
            raise from_problem(answer.status, answer.document)
        return answer.headers, answer.status, answer.document


def _path(key: str, kind: str = "kv") -> str:
    return f"/{kind}/{quote(key, safe='')}"


def _write_headers(
    headers: Mapping[str, str] | None,
    if_match: int | str | None,
    if_none_match: bool,
    idempotency_key: str | None,
) -> dict[str, str]:
    sent = dict(headers or {})
    if if_match is not None:
        sent["If-Match"] = "*" if if_match == "*" else f'"{if_match}"'
    if if_none_match:
        sent["If-None-Match"] = "*"
    if idempotency_key is not None:
        sent["Idempotency-Key"] = idempotency_key
    return sent
