"""What the balancer does when a backend, a client or the load itself misbehaves."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from services.load_balancer.upstream import Upstream
from tests.load_balancer.rig import (
    FakeBackend,
    Message,
    Rig,
    answer,
    read_answer,
    read_body,
    rig,
    until,
)


async def hang_up(request: Message, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> bool:
    """Take the request, break the connection."""
    request.body = await read_body(reader, request.headers)
    return False


async def say_nothing(_: Message, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> bool:
    await reader.read()
    return False


def counts(made: Rig) -> list[int]:
    return [len(backend.requests) for backend in made.backends]


# ------------------------------------------------------------------ retries


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_an_idempotent_request_is_made_again_elsewhere(method: str) -> None:
    """RFC 9110, 9.2.2: "a client can … repeat the request automatically" if it is idempotent."""
    async with rig(2) as made:
        made.backends[0].reply = hang_up
        found = await made.ask(method, "/", body=b"same" if method == "PUT" else None)

        assert found.status == 200
        assert found.headers["x-served-by"] == "b2"
        assert counts(made) == [1, 1]
        if method == "PUT":
            assert [backend.requests[0].body for backend in made.backends] == [b"same"] * 2
        assert made.backend("b1").failures == 1


async def test_a_post_is_not_made_again_for_it_may_have_happened() -> None:
    """RFC 9110, 9.2.2: "A proxy MUST NOT automatically retry non-idempotent requests". With an
    Idempotency-Key it is one no longer."""
    async with rig(2) as made:
        made.backends[0].reply = hang_up
        found = await made.ask("POST", "/", body=b"pay")
        assert found.status == 502
        assert found.problem["definite"] is False
        assert counts(made) == [1, 0]
        await made.ask()  # b2's turn
        with_key = await made.ask("POST", "/", "Idempotency-Key: 17", body=b"pay")
        assert with_key.status == 200
        assert made.backends[1].requests[-1].headers["idempotency-key"] == "17"


async def test_a_post_that_was_never_sent_may_go_elsewhere() -> None:
    """A refused connection is definite: nothing happened."""
    async with rig(2) as made:
        await made.backends[0].kill()
        found = [await made.ask("POST", "/", body=b"pay") for _ in range(4)]

        assert [each.status for each in found] == [200] * 4
        await made.backends[1].kill()
        (last,) = [await made.ask("POST", "/", body=b"pay")]
        assert last.status in (502, 503)
        assert last.headers.get("retry-after") == "1" or not last.problem["definite"]


async def test_what_may_have_happened_is_not_denied_by_the_next_backend() -> None:
    """b1 took the request and was lost, b2 takes no connection: nobody knows, so 'it did not
    happen' would be a lie."""

    async def take_and_break(
        request: Message, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.transport.abort()
        return False

    async with rig(2) as made:
        made.backends[0].reply = take_and_break
        await made.backends[1].kill()
        for _ in range(2):  # whoever is asked first
            found = await made.ask("PUT", "/", body=b"x")
            assert found.status in (502, 503)
        asked = len(made.backends[0].requests)
        assert asked >= 1
        assert found.problem["definite"] is False


async def test_an_answer_that_was_begun_is_not_begun_again() -> None:
    async def half(_: Message, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        return False

    async with rig(2) as made:
        made.backends[0].reply = half
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await made.ask()
        assert counts(made) == [1, 0]


async def test_a_body_that_is_too_long_to_keep_is_not_sent_again() -> None:
    async with rig(2, retry_body_bytes=1000) as made:
        made.backends[0].reply = hang_up
        assert (await made.ask("PUT", "/", body=b"x" * 1000)).status == 200
        assert (await made.ask("PUT", "/", body=b"x" * 1000)).status == 200  # b2's turn? either way
        made.backends[1].reply = hang_up
        assert (await made.ask("PUT", "/", body=b"x" * 1001)).status == 502


async def test_503_is_retried_and_passed_on_when_nobody_can() -> None:
    async with rig(2) as made:
        made.backends[0].reply = answer(503, b"busy", "Retry-After: 7")
        assert (await made.ask()).headers["x-served-by"] == "b2"
        made.backends[1].reply = answer(503, b"busy", "Retry-After: 7")
        found = await made.ask()

    assert (found.status, found.body, found.headers["retry-after"]) == (503, b"busy", "7")


async def test_a_misdirected_request_finds_who_can_answer_it() -> None:
    """421 is definite: whatever the method, it goes elsewhere, and nobody is blamed for it."""
    async with rig(3) as made:
        for backend in made.backends[:2]:
            backend.reply = answer(421, b"ask b3")
        assert (await made.ask("POST", "/", body=b"pay")).body == b"b3"
        assert [made.backend(name).failures for name in ("b1", "b2", "b3")] == [0, 0, 0]
        made.backends[2].reply = answer(421, b"ask b1")
        assert (await made.ask()).status == 421


async def test_retries_stop_when_the_budget_is_spent() -> None:
    """Everything fails: the load on the backends grows by the budget, not by the attempts."""
    settings = {"retry_attempts": 3, "retry_budget": 10, "retry_minimum_per_s": 0,
                "breaker_failures": 0, "outlier_failures": 0, "retry_wait_ms": 0}  # fmt: skip
    async with rig(3, **settings) as made:
        for backend in made.backends:
            backend.reply = hang_up
        found = [await made.ask() for _ in range(50)]

        assert {each.status for each in found} == {502}
        assert 50 <= sum(counts(made)) <= 50 + 1 + 5
        assert made.balancer.proxy.retries.budget.denied > 40


# ------------------------------------------------------------------ who is asked


async def test_active_checks_take_out_and_bring_back() -> None:
    async with rig(2, health_interval_ms=20, health_fall=2, health_rise=2) as made:
        made.backends[0].healthy = False
        await until(lambda: made.backend("b1").check.healthy is False)
        assert [(await made.ask()).body for _ in range(4)] == [b"b2"] * 4
        made.backends[1].healthy = False
        await until(lambda: made.backend("b2").check.healthy is False)
        nobody = await made.ask()
        not_ready = await made.ask("GET", "/health/ready")
        made.backends[0].healthy = True
        await until(lambda: made.backend("b1").check.healthy)
        assert (await made.ask()).body == b"b1"

    assert (nobody.status, nobody.headers["retry-after"]) == (503, "1")
    assert nobody.problem["definite"] is True
    assert not_ready.status == 503


async def test_a_check_can_look_for_the_leader() -> None:
    """As Patroni's users do it: the check passes on the primary alone."""
    settings = {"health_interval_ms": 20, "health_expect": "b2"}
    async with rig(2, health_path="/status", **settings) as made:
        assert {(await made.ask("GET", "/x")).body for _ in range(4)} == {b"b2"}


async def test_a_backend_that_answers_5xx_is_ejected_and_comes_back() -> None:
    """Its health check is fine: only real traffic shows it."""
    settings = {"health_interval_ms": 20, "outlier_failures": 5, "outlier_ejection_ms": 1_500}
    async with rig(3, **settings) as made:
        made.backends[0].reply = answer(500, b"bug")
        first = Counter([(await made.ask()).status for _ in range(30)])
        assert first[500] == 5  # a 500 is not retried: it may be the request's own fault
        assert made.backend("b1").ejections == 1
        made.backends[0].reply = answer(200, b"b1")
        await until(lambda: made.backend("b1").answers[2] or asyncio.ensure_future(made.ask()))
        assert Counter([(await made.ask()).status for _ in range(9)]) == {200: 9}


async def test_the_breaker_spares_a_backend_that_does_not_answer() -> None:
    """After so many failures it is not even tried; then one probe at a time."""
    settings = {"breaker_failures": 3, "breaker_open_ms": 1_000, "outlier_failures": 0,
                "retry_attempts": 1}  # fmt: skip
    async with rig(1, **settings) as made:
        made.backends[0].reply = hang_up
        statuses = [(await made.ask()).status for _ in range(6)]
        assert statuses == [502, 502, 502, 503, 503, 503]
        assert counts(made) == [3]
        made.backends[0].reply = answer()
        breaker = made.backend("b1").breaker
        loop = asyncio.get_running_loop()
        await until(lambda: breaker.retry_after(loop.time()) == 0.0)
        assert (await made.ask()).status == 200
        assert breaker.state == "closed"


async def test_a_probe_is_not_spent_on_a_client_that_has_gone() -> None:
    settings = {"breaker_failures": 1, "breaker_open_ms": 100, "outlier_failures": 0,
                "retry_attempts": 1}  # fmt: skip
    async with rig(1, **settings) as made:
        made.backends[0].reply = hang_up
        await made.ask()
        breaker = made.backend("b1").breaker
        assert breaker.state == "open"
        loop = asyncio.get_running_loop()
        await until(lambda: breaker.retry_after(loop.time()) == 0.0)
        made.backends[0].reply = say_nothing
        _, writer = await made.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        await until(lambda: counts(made) == [2])
        assert breaker.state == "half_open"
        writer.transport.abort()
        await until(lambda: made.balancer.proxy.admission.in_flight == 0)
        made.backends[0].reply = answer()
        assert (await made.ask()).status == 200  # at once, not after another 100 ms
        assert breaker.state == "closed"


async def test_a_backend_that_hangs_is_given_up_and_blamed() -> None:
    async with rig(2, answer_timeout_ms=100) as made:
        made.backends[0].reply = say_nothing
        found = await made.ask()

        assert found.headers["x-served-by"] == "b2"
        assert made.backend("b1").failures == 1
        assert (await made.ask("POST", "/", body=b"x")).status in (200, 504)


async def test_slow_start_gives_a_newcomer_little_at_first() -> None:
    settings = {"policy": "weighted_round_robin", "slow_start_ms": 60_000, "admin": "on"}
    async with rig(2, **settings) as made:
        found = await put_backend(made, "b3", made.backends[0])
        assert found.status == 200
        served = Counter([(await made.ask()).headers["x-served-by"] for _ in range(42)])

    assert served == {"b1": 20, "b2": 20, "b3": 2}  # weights 1, 1, 0.1


async def put_backend(made: Rig, name: str, backend: FakeBackend, weight: int = 1) -> Message:
    body = b'{"address": "127.0.0.1:%d", "weight": %d}' % (backend.port, weight)
    return await made.ask(
        "PUT", f"/admin/backends/{name}", "Content-Type: application/json", body=body
    )


async def patch(made: Rig, name: str, body: bytes) -> Message:
    return await made.ask(
        "PATCH", f"/admin/backends/{name}", "Content-Type: application/json", body=body
    )


# ------------------------------------------------------------------ draining, admin


async def test_a_drained_backend_finishes_what_it_has() -> None:
    release = asyncio.Event()

    async def slow(_: Message, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await release.wait()
        writer.write(answer(200, b"late"))
        return True

    async with rig(2, admin="on") as made:
        made.backends[0].reply = slow
        late = asyncio.ensure_future(made.ask())
        await until(lambda: counts(made) == [1, 0])
        assert (await patch(made, "b1", b'{"draining": true}')).status == 200
        assert {(await made.ask()).body for _ in range(4)} == {b"b2"}
        release.set()
        assert (await late).body == b"late"
        await until(lambda: made.backend("b1").connections == 0)
        await patch(made, "b1", b'{"draining": false}')
        assert {(await made.ask()).body for _ in range(4)} == {b"b2", b"late"}


async def test_weights_and_members_change_while_it_runs() -> None:
    async with rig(2, admin="on", policy="weighted_round_robin") as made:
        await patch(made, "b1", b'{"weight": 3}')
        assert Counter([(await made.ask()).body for _ in range(8)]) == {b"b1": 6, b"b2": 2}
        await patch(made, "b1", b'{"weight": 0}')
        assert {(await made.ask()).body for _ in range(4)} == {b"b2"}
        assert (await made.ask("DELETE", "/admin/backends/b1")).status == 200
        assert (await made.ask("DELETE", "/admin/backends/b1")).status == 404
        for body in (b'{"weight": -1}', b'{"weight": 1001}', b'{"other": 1}', b"[]", b"{"):
            assert (await patch(made, "b2", body)).status == 400
        assert (await patch(made, "B!", b"{}")).status == 400
        wrong = await made.ask("PUT", "/admin/backends/b9", body=b'{"address": "nowhere"}')
        assert wrong.status in (400, 415)


async def test_the_admin_face_is_not_on_the_public_listener_unless_asked_for() -> None:
    async with rig() as made:
        assert (await patch(made, "b1", b'{"draining": true}')).headers["x-served-by"] == "b1"


async def test_it_drains_itself_when_it_is_told_to_stop() -> None:
    release = asyncio.Event()

    async def slow(_: Message, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await release.wait()
        writer.write(answer(200, b"late"))
        return True

    async with rig(1, grace_ms=5000) as made:
        made.backends[0].reply = slow
        idle, _ = await made.connect()
        late = asyncio.ensure_future(made.ask())
        await until(lambda: counts(made) == [1])
        drained = asyncio.ensure_future(made.balancer.proxy.drain(5))
        assert await idle.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await made.connect()
        release.set()
        found = await late
        assert (found.body, found.headers["connection"]) == (b"late", "close")
        await asyncio.wait_for(drained, 5)


# ------------------------------------------------------------------ limits


async def test_a_client_has_its_share_of_connections_and_no_more() -> None:
    async with rig(1, connections_per_client=2) as made:
        first = [await made.connect() for _ in range(2)]
        (refused,) = await made.raw(b"")
        assert (refused.status, refused.headers["connection"]) == (429, "close")
        first[0][1].close()
        await until(lambda: made.balancer.proxy.admission.connections == 1)
        assert (await made.ask()).status == 200


async def test_a_client_has_its_rate_and_no_more() -> None:
    async with rig(1, rate_per_client_s=1, rate_burst=3) as made:
        found = [await made.ask() for _ in range(5)]

        assert [each.status for each in found] == [200, 200, 200, 429, 429]
        assert found[-1].headers["retry-after"] == "1"
        assert found[-1].problem["definite"] is True
        assert (await made.ask("GET", "/health/ready")).status == 200  # never limited


@pytest.mark.parametrize("limit", ["in_flight_max", "backend_in_flight_max", "connections_max"])
async def test_what_is_too_much_is_shed_at_the_door(limit: str) -> None:
    """503 with Retry-After, at once, and the backend does not hear of it."""
    async with rig(1, backend_wait_ms=0, **{limit: 2}) as made:
        made.backends[0].reply = say_nothing
        for _ in range(2):
            _, writer = await made.connect()
            writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        await until(lambda: counts(made) == [2])
        found = (await made.raw(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"))[0]

        assert (found.status, found.headers["retry-after"]) == (503, "1")
        assert found.problem["type"] == "urn:faultline:overloaded"
        assert counts(made) == [2]


# ------------------------------------------------------------------ slow clients


async def test_slowloris_is_cut_off_from_its_first_byte_on() -> None:
    """One byte at a time, each in time: the head as a whole has its time, and no byte renews it."""
    async with rig(1, header_timeout_ms=200) as made:
        loop = asyncio.get_running_loop()
        began = loop.time()
        attackers = [await made.connect() for _ in range(30)]

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message:
            async def write() -> None:
                writer.write(b"GET / HTTP/1.1\r\n")
                while True:
                    writer.write(b"X-a: b\r\n")
                    await asyncio.sleep(0.03)

            writing = asyncio.ensure_future(write())
            try:
                return await read_answer(reader)
            finally:
                writing.cancel()

        slow = asyncio.gather(*(drip(*each) for each in attackers))
        while not slow.done():
            assert (await made.ask()).status == 200  # others are served meanwhile
        assert {each.status for each in await slow} == {408}
        assert loop.time() - began < 5
        assert (await made.ask()).status == 200


async def test_a_client_that_stalls_in_its_body_is_not_the_backends_failure() -> None:
    settings = {"body_timeout_ms": 150, "breaker_failures": 1, "outlier_failures": 1}
    async with rig(2, **settings) as made:
        for backend in made.backends:
            backend.reply = hang_up  # reads the body to its end, which never comes
        found = await made.raw(b"PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf")

        assert [each.status for each in found] == [408]
        assert made.backend("b1").failures == 0
        assert made.backend("b1").breaker.state == "closed"
        assert counts(made) == [1, 0]


async def test_idle_connections_end() -> None:
    async with rig(1, keepalive_ms=100, backend_keepalive_ms=100) as made:
        reader, writer = await made.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        await read_answer(reader)
        assert made.backend("b1").connections == 1
        assert await asyncio.wait_for(reader.read(), 5) == b""
        await until(lambda: made.backend("b1").connections == 0)


async def test_a_client_that_takes_nothing_is_cut_off_and_nothing_piles_up() -> None:
    """Back-pressure: what the client does not read, the backend is not asked for."""
    produced = 0

    async def endless(_: Message, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        nonlocal produced
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            produced += 65536

    async with rig(1, send_timeout_ms=300) as made:
        made.backends[0].reply = endless
        _, writer = await made.connect()
        writer.transport.pause_reading()
        writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        await until(lambda: counts(made) == [1])
        await until(lambda: made.balancer.proxy.admission.in_flight == 0)

        print(f"the backend got rid of {produced} bytes")
        assert produced < 32 << 20  # the buffers of four sockets, and ours
        assert made.backend("b1").failures == 0


async def test_a_connection_that_comes_too_late_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody wants it any more when it is made: cancelled after `connection_made`, uvloop's
    `create_connection` closes it without a `connection_lost`. The rig looks at the count."""
    connection_made = Upstream.connection_made

    def too_late(upstream: Upstream, transport: asyncio.BaseTransport) -> None:
        connection_made(upstream, transport)
        for client in made.balancer.proxy.clients:
            if client._current is not None:
                client._current.deadline_over()

    monkeypatch.setattr(Upstream, "connection_made", too_late)
    async with rig(1) as made:
        assert (await made.ask()).status == 504


async def test_changes_of_backends_need_the_operators_token() -> None:
    """Whoever may send requests through a balancer must not be able to take its backends away;
    what `/status` tells anyway may be read."""
    async with rig(2, admin="on", admin_token="correct-horse-battery") as made:
        for lines in ((), ("Authorization: Bearer wrong-horse-battery",)):
            for method, body in (("PUT", b"{}"), ("PATCH", b"{"), ("DELETE", None)):
                refused = await made.ask(method, "/admin/backends/b1", *lines, body=body)
                assert refused.status == 401
                assert refused.headers["www-authenticate"].startswith("Bearer")
                assert refused.problem["definite"] is True
        assert set(made.balancer.proxy.backends.all) == {"b1", "b2"}
        assert (await made.ask("GET", "/admin/backends")).status == 200
        token = "Authorization: Bearer correct-horse-battery"
        assert (await made.ask("DELETE", "/admin/backends/b1", token)).status == 200
        assert set(made.balancer.proxy.backends.all) == {"b2"}
