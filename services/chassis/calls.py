"""Calls from one service to another: traced, within the deadline.

    async with Calls(telemetry, clock) as calls:
        answer = await calls.request("inventory", "POST", url, context=context, deadline=deadline,
                                     body={"item": "book"})

Each call is a span of its own (event `call`) below the request that it is made for, and the
callee's request is a span below the call: what is between the two, waiting and network, can be
told from what the callee did. `traceparent`, `X-Request-Id` and what is left of the deadline
(`X-Deadline-Ms`) go along; a call for which nothing is left is not sent.

Nothing is sent twice behind the caller's back. Who may retry, does it with tenacity around
`request`, by the error: `Definite` did not happen, `Indefinite` may have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from yarl import URL

from services.chassis.app import Context
from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.chassis.http_client import Answer, HttpClient
from services.chassis.telemetry import TEXT_MAX, Telemetry


class CallHeaders(dict[str, str]):
    """What a call carries along. `status`: what was answered, for the span, if not simply 200."""

    status = 200


class Calls(HttpClient):
    """The outgoing calls of a service. To be used as an async context manager, or closed."""

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        super().__init__()
        self._telemetry = telemetry
        self._clock = clock

    async def request(
        self,
        peer: str,
        method: str,
        url: str,
        *,
        context: Context,
        deadline: float,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call `peer` on behalf of the request of `context`. Raises as `exchange`.

        `body` is sent as JSON; `deadline` is the one of the request (`app.deadline_of`).
        """
        own = dict(headers or {})
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            own["Content-Type"] = "application/json"
        path = URL(url, encoded=True).raw_path
        async with self.span(context, peer, method, path) as told:
            answer = await self.exchange(
                peer, method, url, body=data, headers={**own, **told}, deadline=deadline
            )
            told.status = answer.status
            return answer

    @asynccontextmanager
    async def span(
        self, context: Context, peer: str, method: str, path: str
    ) -> AsyncIterator[CallHeaders]:
        """A call by other means (`KvClient`, a driver of Redis): its span, told when it ends.

        Gives the headers that make the callee's work part of the trace.
        """
        span_id = self._telemetry.new_span_id()
        began = self._clock.true_monotonic()
        parent = context.parent_of(span_id)
        told = CallHeaders({"traceparent": parent, "X-Request-Id": context.request_id})
        outcome, status = "ok", 0
        try:
            yield told
        except ServiceError as exc:
            outcome, status = exc.slug, exc.status
            raise
        except asyncio.CancelledError:
            outcome, status = "cancelled", 499
            raise
        except BaseException as exc:
            outcome, status = type(exc).__name__, 500
            raise
        finally:
            if self._telemetry.enabled and context.sampled:
                self._telemetry.emit(
                    {
                        "event": "call",
                        "kind": "span",
                        "trace_id": context.trace_id,
                        "span_id": span_id,
                        "parent_span_id": context.span_id,
                        "request_id": context.request_id,
                        "peer": peer,
                        "method": method,
                        "path": path[:TEXT_MAX],
                        "status": status or told.status,
                        "outcome": outcome,
                        "duration_us": round((self._clock.true_monotonic() - began) * 1e6),
                    }
                )
