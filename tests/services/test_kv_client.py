"""The client: hints without ping-pong, no hidden retries, errors that say what is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from aiohttp import web

from services.chassis.app import json_response, problem_response
from services.chassis.errors import (
    BadRequest,
    CircuitOpen,
    ConnectionLost,
    DeadlineExceeded,
    Definite,
    Indefinite,
    InternalError,
    KeyReused,
    NotFound,
    NotLeader,
    PreconditionFailed,
    ServiceError,
    TooLarge,
    Unavailable,
    from_problem,
    to_problem,
)
from services.kv.client import KvClient
from services.resilience.circuit_breaker import CircuitBreaker, State
from tests.services.cluster import until

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def servers(*answers: Answer) -> AsyncIterator[dict[str, str]]:
    """A server n1, n2, … per answer."""
    runners, addresses = [], {}
    for number, answer in enumerate(answers, 1):
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        addresses[f"n{number}"] = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield addresses
    finally:
        for runner in runners:
            await runner.cleanup()


class Script:
    """Answers by a list, the last for ever; keeps the requests."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[web.BaseRequest] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "hang":
            # For as long as the client holds on; a longer sleep would hold the server's end up.
            await until(lambda: request.transport is None, within_s=30)
        if answer == "break":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(answer, bytes):
            return web.Response(body=answer)
        if isinstance(answer, ServiceError):
            return problem_response(answer)
        return json_response(answer)


OK = {"key": "a", "value": 1, "version": 7}


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("x"),
        TooLarge("x"),
        KeyReused("x"),
        NotFound("x", key="a"),
        PreconditionFailed("x", value=[1], version=3),
        PreconditionFailed("x"),
        NotLeader("x", leader="n3"),
        Unavailable("x"),
        DeadlineExceeded("x"),
        InternalError("x"),
    ],
)
def test_problem_there_and_back(error: ServiceError) -> None:
    """What the service raises is what the client raises."""
    back = from_problem(error.status, to_problem(error))
    assert type(back) is type(error)
    assert (back.detail, back.members) == (error.detail, error.members)
    assert isinstance(back, Definite) is error.definite


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        (500, None, Indefinite),
        (502, "<html>", Indefinite),
        (503, {}, Indefinite),
        (503, {"definite": True}, Unavailable),
        (400, None, BadRequest),
        (418, {"definite": False}, Indefinite),
        (200, [], Indefinite),
        (404, {"type": "urn:faultline:key-not-found", "detail": 5}, NotFound),
        (412, {"type": ["x"]}, BadRequest),
    ],
)
def test_foreign_answers(status: int, document: Any, kind: type[ServiceError]) -> None:
    """What cannot be understood is indefinite, unless the status says it was refused."""
    assert isinstance(from_problem(status, document), kind)


async def test_follows_the_hint() -> None:
    """The hint is followed at once, and the leader remembered."""
    n1, n2 = Script(NotLeader(leader="n2")), Script(OK)
    async with servers(n1, n2) as addresses, KvClient(addresses, random=Random(1)) as client:
        client._leader = "n1"
        assert (await client.put("a", 1)).node == "n2"
        assert (await client.put("a", 1)).node == "n2"

    assert (len(n1.requests), len(n2.requests)) == (1, 2)


async def test_two_stale_hints() -> None:
    """Two nodes that name each other do not keep the client from finding the third."""
    n1, n2, n3 = Script(NotLeader(leader="n2")), Script(NotLeader(leader="n1")), Script(OK)
    for seed in range(20):
        async with servers(n1, n2, n3) as addresses:
            client = KvClient(addresses, random=Random(seed), hops_max=30)
            client._leader = "n1"
            assert (await client.get("a")).node == "n3", f"SEED={seed}"
            await client.close()


async def test_gives_up() -> None:
    """The number of hops is bounded; the last refusal is raised: definite."""
    n1 = Script(NotLeader(leader="n2"))
    n2 = Script(NotLeader(leader="n1"))
    async with servers(n1, n2) as addresses, KvClient(addresses, hops_max=4) as client:
        with pytest.raises(NotLeader):
            await client.put("a", 1)

    assert len(n1.requests) + len(n2.requests) == 4


@pytest.mark.parametrize("body", [b'{"version": "\xff"}', b"[" * 100_000])
async def test_an_answer_that_nobody_can_read_is_indefinite(body: bytes) -> None:
    """Be it damaged on its way: the write may have happened."""
    async with servers(Script(body)) as addresses, KvClient(addresses) as client:
        with pytest.raises(Indefinite):
            await client.put("a", 1)


async def test_pinned() -> None:
    """A pinned request is asked of its node alone."""
    n1, n2 = Script(NotLeader(leader="n2")), Script(OK)
    async with servers(n1, n2) as addresses, KvClient(addresses) as client:
        with pytest.raises(NotLeader) as caught:
            await client.put("a", 1, node="n1")

    assert caught.value.leader == "n2"
    assert (len(n1.requests), len(n2.requests)) == (1, 0)


@pytest.mark.parametrize("method", ["get", "put", "delete"])
async def test_no_hidden_retry(method: str) -> None:
    """A connection that breaks is reported, not repaired: aiohttp alone would send it again."""
    n1 = Script(OK, "break", OK)
    async with servers(n1) as addresses, KvClient(addresses) as client:
        await client.get("a")  # now the connection is one that was kept alive
        with pytest.raises(ConnectionLost) as caught:
            await {
                "get": lambda: client.get("a"),
                "put": lambda: client.put("a", 1),
                "delete": lambda: client.delete("a"),
            }[method]()

    assert caught.value.definite is False
    assert len(n1.requests) == 2


async def test_retries_only_with_a_key() -> None:
    """Retries are for reads and for writes with an idempotency key."""
    n1 = Script("break", OK)
    async with servers(n1) as addresses, KvClient(addresses, retries=3) as client:
        with pytest.raises(ConnectionLost):
            await client.put("a", 1)
    n1 = Script("break", "break", OK)
    async with servers(n1) as addresses, KvClient(addresses, retries=3) as client:
        assert (await client.put("a", 1, idempotency_key="k")).version == 7
    assert [request.headers["Idempotency-Key"] for request in n1.requests] == ["k"] * 3


async def test_a_lost_attempt_stays_indefinite() -> None:
    """That the last attempt was refused says nothing about the first, which was lost."""
    n1 = Script("break", Unavailable("no leader is known"))
    async with servers(n1) as addresses, KvClient(addresses, retries=2, hops_max=1) as client:
        with pytest.raises(Indefinite):
            await client.put("a", 1, idempotency_key="k")


INSERT = {"insert": 1, "after": "3@n1"}


@pytest.mark.parametrize("refusal", [NotFound("no element 3@n1"), TooLarge("full"), KeyReused()])
async def test_a_refusal_by_another_node_says_nothing_of_an_update_that_was_lost(
    refusal: ServiceError,
) -> None:
    """n1 has inserted, its answer is lost; n2 has not heard of the element to insert behind."""
    n1 = Script("break", refusal)
    async with servers(n1) as addresses, KvClient(addresses, retries=2) as client:
        with pytest.raises(Indefinite):
            await client.update("sequences", "a", INSERT, idempotency_key="k")
    n1 = Script("break", PreconditionFailed("it is at 7", version=7))
    async with servers(n1) as addresses, KvClient(addresses, retries=2) as client:
        with pytest.raises(PreconditionFailed):
            await client.cas("a", 1, version=3, idempotency_key="k")


async def test_deadline() -> None:
    """The deadline holds at the client, too, and travels to the server."""
    n1 = Script("hang")
    async with servers(n1) as addresses, KvClient(addresses) as client:
        started = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded):
            await client.put("a", 1, deadline_ms=400)
        assert asyncio.get_running_loop().time() - started < 2

    assert 1 <= int(n1.requests[0].headers["X-Deadline-Ms"]) <= 400


async def test_refused_is_definite() -> None:
    """A refused connection: nothing was sent, so nothing happened."""
    async with KvClient({"n1": "127.0.0.1:1"}, hops_max=1) as client:
        with pytest.raises(Unavailable) as caught:
            await client.put("a", 1)

    assert caught.value.definite is True


async def test_cancellation() -> None:
    """A cancelled call is cancelled, not turned into an error."""
    n1 = Script("hang")
    async with servers(n1) as addresses, KvClient(addresses) as client:
        call = asyncio.create_task(client.put("a", 1))
        await until(lambda: n1.requests)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_circuit_breaker() -> None:
    """Failures open the node's circuit: refused at once, nothing sent; other nodes go on."""
    n1, n2 = Script("hang"), Script(OK)
    breaker = CircuitBreaker(failures_to_open=2, open_for_s=60)
    async with (
        servers(n1, n2) as addresses,
        KvClient(addresses, breakers={"n1": breaker}) as client,
    ):
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                await client.get("a", node="n1", deadline_ms=100)
        sent = len(n1.requests)
        with pytest.raises(CircuitOpen) as caught:
            await client.get("a", node="n1")
        client._leader = "n1"
        assert (await client.get("a")).node == "n2", "an open circuit is no reason to give up"

    assert caught.value.definite is True
    assert breaker.state is State.OPEN
    assert len(n1.requests) == sent


async def test_answers_keep_the_circuit_closed() -> None:
    """A 404 or 412 shows that the node lives: it does not open the circuit."""
    n1 = Script(NotFound(key="a"))
    breaker = CircuitBreaker(failures_to_open=1, open_for_s=60)
    async with servers(n1) as addresses, KvClient(addresses, breakers={"n1": breaker}) as client:
        for _ in range(3):
            with pytest.raises(NotFound):
                await client.get("a")

    assert breaker.state is State.CLOSED


async def test_conditions_travel() -> None:
    """cas() sends If-Match with the version, or If-None-Match when the key must be absent."""
    n1 = Script(OK)
    async with servers(n1) as addresses, KvClient(addresses) as client:
        await client.cas("a/b", 1, version=5)
        await client.cas("a", 1, version=None)
        await client.put("a", 1, if_match="*")

    first, second, third = n1.requests
    assert first.raw_path == "/kv/a%2Fb"
    assert first.headers["If-Match"] == '"5"'
    assert second.headers["If-None-Match"] == "*"
    assert third.headers["If-Match"] == "*"
