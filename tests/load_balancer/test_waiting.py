"""All backends are full: a bounded wait, first come, first served, then 503."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

from services.load_balancer.errors import Overloaded
from services.load_balancer.waiting_line import WaitingLine
from tests.load_balancer.rig import Message, Rig, answer, rig, until


class Held:
    """A backend's reply that is given when it is let go, request by request, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._free = asyncio.Semaphore(0)

    async def __call__(
        self, request: Message, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        self.asked.append(request.target)
        await self._free.acquire()
        writer.write(answer(200, request.target.encode()))
        return True

    def let_go(self) -> None:
        self._free.release()


async def crowd(made: Rig, *targets: str) -> list[asyncio.Task[Message]]:
    """Requests for `targets`, each sent when the one before it is in its place."""
    proxy, sent = made.balancer.proxy, []
    for target in targets:
        before = proxy.admission.in_flight
        sent.append(asyncio.create_task(made.ask("GET", target)))
        await until(lambda b=before: proxy.admission.in_flight > b)  # type: ignore[misc]
    return sent


async def test_who_waits_is_served_in_the_order_of_coming() -> None:
    """HAProxy, `maxconn` of a server: requests over it wait in a queue; a burst that is over in a
    moment costs time instead of errors."""
    held = Held()
    async with rig(1, backend_in_flight_max=1, backend_wait_ms=10_000) as made:
        made.backends[0].reply = held
        sent = await crowd(made, "/1", "/2", "/3")
        status = made.balancer.details()
        assert (status["waiting"], status["in_flight"]) == (2, 3)
        for number in (1, 2, 3):
            await until(lambda n=number: len(held.asked) == n)  # type: ignore[misc]
            held.let_go()

        assert [(each.status, each.body) for each in await asyncio.gather(*sent)] == [
            (200, b"/1"), (200, b"/2"), (200, b"/3")
        ]  # fmt: skip
        assert held.asked == ["/1", "/2", "/3"]
        assert made.balancer.details()["waited_in_vain"] == 0
        assert "waiting 0.0" in made.balancer.metrics.render().decode()


async def test_the_wait_is_bounded_in_time() -> None:
    """503 with Retry-After after `backend_wait_ms`, and the backend does not hear of it."""
    held = Held()
    async with rig(1, backend_in_flight_max=1, backend_wait_ms=150) as made:
        made.backends[0].reply = held
        (first,) = await crowd(made, "/1")
        loop = asyncio.get_running_loop()
        began = loop.time()
        refused = await made.ask("GET", "/2")

        assert loop.time() - began >= 0.14
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.problem["type"] == "urn:faultline:overloaded"
        assert made.balancer.details()["waited_in_vain"] == 1
        held.let_go()
        assert (await first).status == 200
        assert held.asked == ["/1"]


async def test_the_line_is_bounded_in_length() -> None:
    """One more than may wait is refused at once."""
    held = Held()
    settings = {"backend_in_flight_max": 1, "backend_wait_ms": 60_000, "backend_waiting_max": 1}
    async with rig(1, **settings) as made:
        made.backends[0].reply = held
        sent = await crowd(made, "/1", "/2")
        assert (await made.ask("GET", "/3")).status == 503
        held.let_go()
        held.let_go()
        assert [each.status for each in await asyncio.gather(*sent)] == [200, 200]


async def test_who_leaves_the_line_is_not_waited_for() -> None:
    """A client that hangs up, and one whose deadline passes, take no place from those behind."""
    held = Held()
    async with rig(1, backend_in_flight_max=1, backend_wait_ms=60_000) as made:
        made.backends[0].reply = held
        proxy = made.balancer.proxy
        (first,) = await crowd(made, "/1")
        _, writer = await made.connect()
        writer.write(b"GET /gone HTTP/1.1\r\nHost: t\r\n\r\n")
        await until(lambda: len(proxy.line) == 1)
        hurried = asyncio.ensure_future(made.ask("GET", "/hurried", "X-Deadline-Ms: 700"))
        await until(lambda: len(proxy.line) == 2)
        last = asyncio.ensure_future(made.ask("GET", "/last"))
        await until(lambda: len(proxy.line) == 3)
        writer.transport.abort()
        assert (await hurried).status == 504
        await until(lambda: len(proxy.line) == 1)
        held.let_go()
        held.let_go()
        assert [(await each).status for each in (first, last)] == [200, 200]
        assert held.asked == ["/1", "/last"]


async def test_a_backend_that_comes_makes_room() -> None:
    """Autoscaling: who waits is on its way at once; no further request is needed to find that."""
    held = Held()
    async with rig(2, backend_in_flight_max=1, backend_wait_ms=60_000, admin="on") as made:
        made.backends[0].reply = made.backends[1].reply = held
        address = f"127.0.0.1:{made.backends[1].port}"
        assert (await made.ask("DELETE", "/admin/backends/b2")).status == 200
        sent = await crowd(made, "/1", "/2")
        assert held.asked == ["/1"]
        body = f'{{"address": "{address}"}}'.encode()
        kind = "Content-Type: application/json"
        assert (await made.ask("PUT", "/admin/backends/b2", kind, body=body)).status == 200
        await until(lambda: held.asked == ["/1", "/2"])
        assert [len(each.requests) for each in made.backends] == [1, 1]
        for _ in sent:
            held.let_go()
        assert [each.status for each in await asyncio.gather(*sent)] == [200, 200]


async def test_a_backend_that_comes_back_makes_room() -> None:
    """One is full, the other one is down: when a health check finds that it is up again, who waits
    goes there at once, though nobody else asks for anything and no place is freed."""
    held = Held()
    checks = {"health_interval_ms": 50, "health_rise": 1, "health_fall": 1}
    async with rig(2, backend_in_flight_max=1, backend_wait_ms=60_000, **checks) as made:
        made.backends[0].reply = made.backends[1].reply = held
        made.backends[1].healthy = False
        await until(lambda: made.backend("b2").check.healthy is False)
        first, second = await crowd(made, "/1", "/2")
        await until(lambda: held.asked == ["/1"])
        assert len(made.balancer.proxy.line) == 1
        made.backends[1].healthy = True
        await until(lambda: held.asked == ["/1", "/2"])
        assert [each.target for each in made.backends[1].requests] == ["/2"]
        held.let_go()
        held.let_go()
        assert [(await each).status for each in (first, second)] == [200, 200]


async def test_the_end_of_an_ejection_makes_room() -> None:
    """An ejection ends by time alone: nothing happens then that could wake those who wait."""
    held = Held()
    ejection = {"outlier_failures": 1, "outlier_ejection_ms": 2_000, "breaker_failures": 0}
    settings = {"retry_attempts": 1, "backend_in_flight_max": 1, "backend_wait_ms": 60_000}
    async with rig(2, policy="round_robin", **settings, **ejection) as made:
        made.backends[0].reply = answer(500)
        made.backends[1].reply = held
        assert (await made.ask("GET", "/bad")).status == 500
        made.backends[0].reply = held
        first, second = await crowd(made, "/1", "/2")
        await until(lambda: held.asked == ["/1"])
        assert len(made.balancer.proxy.line) == 1
        await until(lambda: held.asked == ["/1", "/2"])
        assert [each.target for each in made.backends[0].requests] == ["/bad", "/2"]
        held.let_go()
        held.let_go()
        assert [(await each).status for each in (first, second)] == [200, 200]


async def test_what_changes_while_the_line_is_looked_at_is_not_missed() -> None:
    """Between the look at who may be asked and the setting of the alarm, the time may have come."""
    loop = asyncio.get_running_loop()
    due = loop.time() - 0.001
    line = WaitingLine(loop, wait_s=60.0, length_max=1, next_change=lambda: due)
    waits = Mock(tried=[])
    waits.choose.side_effect = Overloaded("all are full")

    assert line.join(waits)
    await until(lambda: waits.choose.called)
    line.leave(waits)


async def test_who_may_go_to_few_does_not_hold_up_those_behind() -> None:
    """The first in line has lost a backend and waits for the other one, which is full; the place
    that is freed at the first is for who comes next."""
    free: dict[str, asyncio.Event] = {}
    lost: list[str] = []

    async def reply(
        request: Message, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if request.target == "/again" and not lost:
            lost.append(request.target)
            writer.transport.abort()
            return False
        await free.setdefault(request.target, asyncio.Event()).wait()
        writer.write(answer(200, request.target.encode()))
        return True

    async with rig(2, backend_in_flight_max=1, backend_wait_ms=60_000) as made:
        proxy = made.balancer.proxy
        made.backends[0].reply = made.backends[1].reply = reply
        sent = await crowd(made, "/1", "/again")
        await until(lambda: len(proxy.line) == 1)
        sent += await crowd(made, "/2", "/3")
        await until(lambda: len(proxy.line) == 2 and "/2" in free)
        free["/2"].set()
        await until(lambda: "/3" in free)
        assert len(proxy.line) == 1
        free["/again"] = asyncio.Event()
        for each in free.values():
            each.set()
        assert [each.status for each in await asyncio.gather(*sent)] == [200, 200, 200, 200]


async def test_a_probe_that_hangs_does_not_hold_up_the_line() -> None:
    """A half-open breaker gives out its probe anew after a while: by time alone, as well."""

    async def hang_up(_: Message, __: asyncio.StreamReader, ___: asyncio.StreamWriter) -> bool:
        return False

    held = Held()
    breaker = {"breaker_failures": 1, "breaker_open_ms": 500, "outlier_failures": 0}
    settings = {"retry_attempts": 1, "backend_in_flight_max": 2, "backend_wait_ms": 60_000}
    async with rig(2, policy="round_robin", **settings, **breaker) as made:
        made.backends[0].reply = hang_up
        made.backends[1].reply = held
        assert (await made.ask("GET", "/bad")).status == 502
        made.backends[0].reply = held
        loop, shut = asyncio.get_running_loop(), made.backend("b1").breaker
        await until(lambda: shut.retry_after(loop.time()) == 0.0)
        sent = await crowd(made, "/1", "/2", "/3", "/4")  # two at b2, the probe, and one in line
        await until(lambda: "/4" in held.asked)
        for _ in sent:
            held.let_go()
        assert [each.status for each in await asyncio.gather(*sent)] == [200] * 4


async def test_the_wait_is_not_taken_for_the_backends_slowness() -> None:
    """Peak EWMA would flee from a backend whose only fault is that it was full."""
    held = Held()
    async with rig(1, backend_in_flight_max=1, backend_wait_ms=60_000) as made:
        made.backends[0].reply = held
        observed: list[float] = []
        latency = made.backend("b1").latency
        made.backend("b1").latency = type(
            "Seen", (), {"observe": lambda _, took, now: observed.append(took)}
        )()
        loop = asyncio.get_running_loop()
        sent = await crowd(made, "/1", "/2")
        began = loop.time()
        await until(lambda: loop.time() - began > 0.3)
        held.let_go()
        held.let_go()
        await asyncio.gather(*sent)
        made.backend("b1").latency = latency
    assert observed[0] >= 0.3
    assert observed[1] < 0.3
