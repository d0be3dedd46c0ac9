"""The HTTP face of a service: routing, one wide event per request, problem+json for every error.

Built on aiohttp's low-level server with one wrapped handler: middlewares cost 6 µs for the first
before they do anything, the router 8 more (measured); what they would do is done here in a line.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from services.chassis.clock import Clock
from services.chassis.errors import (
    BadRequest,
    InternalError,
    MethodNotAllowed,
    NoRoute,
    RequestTimeout,
    ServiceError,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
    to_problem,
)
from services.chassis.http_client import DEADLINE_HEADER
from services.chassis.metrics import Metrics
from services.chassis.telemetry import TEXT_MAX, Telemetry, parse_traceparent

DEADLINE_MS_MAX, DEADLINE_MS_DEFAULT = 60_000, 2_000
KEEPALIVE_S = 75.0  # also the time in which a slow client must have sent its headers
LINE_BYTES_MAX, HEADERS_MAX = 8_190, 64
BODY_BYTES_MAX = 256 << 10

# No comma: a header given twice arrives joined by one, and so do the ids of a frame between peers.
_REQUEST_ID = re.compile(r"[!-+\--~]{1,128}")
_encode = msgspec.json.Encoder().encode


class Context:
    """What is known about a request beside the request: identity, trace, deadline."""

    __slots__ = (
        "fields",
        "headers",
        "parent_span_id",
        "path",
        "query",
        "received_at",
        "request_id",
        "sampled",
        "span_id",
        "trace_id",
    )

    def __init__(self, request: web.BaseRequest, telemetry: Telemetry, received_at: float) -> None:
        headers = request.headers
        parent = parse_traceparent(headers.get("traceparent"))
        if parent is None:
            self.trace_id, self.parent_span_id = telemetry.new_trace_id(), None
            self.sampled = True
        else:
            self.trace_id, self.parent_span_id, self.sampled = parent
        self.span_id = telemetry.new_span_id()
        request_id = headers.get("X-Request-Id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = self.span_id
        self.request_id: str = request_id
        raw = request.raw_path
        if not raw.startswith("/"):
            raw = str(request.rel_url.raw_path_qs)  # absolute form: GET http://host/path
        self.path, _, self.query = raw.partition("?")
        self.received_at = received_at
        # Whatever a handler wants to have in the wide event of the request.
        self.fields: dict[str, Any] = {}
        # And in the headers of the answer, be it an error.
        self.headers: dict[str, str] = {}

    @property
    def traceparent(self) -> str:
        """This request's span, to be sent along with whatever is done for it."""
        return self.parent_of(self.span_id)

    def parent_of(self, span_id: str) -> str:
        """The `traceparent` for what is done below that span of the same trace."""
        return f"00-{self.trace_id}-{span_id}-{'01' if self.sampled else '00'}"

    @property
    def origin(self) -> str:
        """Span and request id, as they travel to the peers that replicate a write."""
        return f"{self.traceparent} {self.request_id}"


Handler = Callable[[web.BaseRequest, Context], Awaitable[web.StreamResponse]]


def json_response(
    data: Any, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """`data` as JSON."""
    all_headers = {"Content-Type": "application/json"}
    if headers:
        all_headers |= headers
    return web.Response(body=_encode(data), status=status, headers=all_headers)


def problem_response(error: ServiceError) -> web.Response:
    """An error as RFC 9457 problem details."""
    headers = {"Content-Type": "application/problem+json", **error.headers()}
    return web.Response(body=_encode(to_problem(error)), status=error.status, headers=headers)


def single_header(request: web.BaseRequest, name: str) -> str | None:
    """The value of a header that may be given once. Raises BadRequest."""
    values = request.headers.getall(name, None)
    if values is None:
        return None
    if len(values) > 1:
        raise BadRequest(f"{name} is given {len(values)} times")
    return values[0]


def deadline_of(request: web.BaseRequest, context: Context) -> float:
    """When the answer must be out, on the event loop's clock. Raises BadRequest."""
    text = single_header(request, DEADLINE_HEADER)
    budget_ms = DEADLINE_MS_DEFAULT
    if text is not None:
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= DEADLINE_MS_MAX:
            raise BadRequest(
                f"{DEADLINE_HEADER} must be a whole number from 1 to {DEADLINE_MS_MAX}, not "
                f"{text[:50]!r}"
            )
        budget_ms = int(text)
    return context.received_at + budget_ms / 1000


async def read_json_body(request: web.BaseRequest, type_: Any, *, deadline: float) -> Any:
    """The body, decoded as `type_`. Raises one of the BadRequests; nothing was done yet."""
    content_type = request.headers.get("Content-Type")
    if content_type is not None:
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaType(f"send application/json, not {media_type[:100]!r}")
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise TooLarge(f"the body may have {BODY_BYTES_MAX} bytes")
    try:
        if request.content.is_eof():
            body = await request.read()  # all of it is here: a small body comes with the headers
        else:
            async with asyncio.timeout_at(deadline):
                body = await request.read()
    except TimeoutError:
        raise RequestTimeout("the body did not arrive within the deadline") from None
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"the body may have {BODY_BYTES_MAX} bytes") from None
    except (HttpProcessingError, web.RequestPayloadError) as exc:
        raise BadRequest(f"broken body: {exc}") from None
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest(f"the body is not the JSON that is expected: {exc}") from None


class App:
    """Routes and the wrapper around every handler.

    `add(method, path, handler)`; a path that ends in `/` takes everything below it (the handler
    finds the rest in `context.path`, still percent-encoded, so that a key may hold `%2F`).
    """

    def __init__(self, telemetry: Telemetry, metrics: Metrics, clock: Clock, log: Any) -> None:
        self._routes: dict[str, dict[str, Handler]] = {}
        self._prefixes: list[tuple[str, dict[str, Handler]]] = []
        self._streams: set[str] = set()
        self._telemetry = telemetry
        self._metrics = metrics
        self._clock = clock
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._runner: web.ServerRunner | None = None
        # Without the peers' WebSockets, which never end by themselves.
        self._in_flight: dict[Context, web.BaseRequest] = {}
        self._draining = False
        self._drained = asyncio.Event()
        self.port = 0

    def add_stream(self, path: str, handler: Handler) -> None:
        """Serve `GET path` by a handler that goes on for ever: `drain` does not wait for it."""
        self._streams.add(path)
        self.add("GET", path, handler)

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Serve `method path` by `handler`."""
        if path.endswith("/"):
            for prefix, methods in self._prefixes:
                if prefix == path:
                    methods[method] = handler
                    return
            self._prefixes.append((path, {method: handler}))
        else:
            self._routes.setdefault(path, {})[method] = handler

    def _route(self, method: str, path: str) -> Handler:
        if self._draining:
            raise Unavailable("the node is stopping")
        methods = self._routes.get(path)
        if methods is None:
            for prefix, below in self._prefixes:
                if path.startswith(prefix):
                    methods = below
                    break
            else:
                raise NoRoute(f"there is nothing at {path[:200]}")
        handler = methods.get(method)
        if handler is None:
            allow = sorted(methods)
            raise MethodNotAllowed(f"{method[:20]} is not among {', '.join(allow)}", allow=allow)
        return handler

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Any request: find its handler, answer, tell."""
        started = self._clock.true_monotonic()
        context = Context(request, self._telemetry, self._loop.time())
        outcome = "ok"
        response: web.StreamResponse
        # A stream (the WebSocket of a peer) never ends by itself; nobody waits for it to finish.
        if context.path not in self._streams:
            self._in_flight[context] = request
        try:
            response = await self._route(request.method, context.path)(request, context)
        except ServiceError as exc:
            response, outcome = problem_response(exc), exc.slug
        except asyncio.CancelledError:
            self._tell(request, context, started, 499, "cancelled")
            raise
        except web.HTTPException as exc:  # aiohttp's own: a WebSocket handshake gone wrong
            response, outcome = problem_response(BadRequest(exc.reason)), BadRequest.slug
        except Exception:
            # Not `exception()`: of this logger that is a line without the traceback.
            self._log.error("unhandled exception", path=context.path[:200], exc_info=True)
            bug = InternalError("a bug in the service; the node's log has it")
            response, outcome = problem_response(bug), bug.slug
        finally:
            self._in_flight.pop(context, None)
            self._look()
        if not response.prepared:
            headers = response.headers
            headers["X-Request-Id"] = context.request_id
            headers["traceparent"] = context.traceparent
            headers.update(context.headers)
        self._tell(request, context, started, response.status, outcome)
        return response

    def _tell(
        self, request: web.BaseRequest, context: Context, started: float, status: int, outcome: str
    ) -> None:
        duration_s = self._clock.true_monotonic() - started
        self._metrics.request(request.method, outcome, duration_s)
        if self._telemetry.enabled and context.sampled:
            self._telemetry.emit(
                {
                    "event": "request",
                    "kind": "span",
                    "trace_id": context.trace_id,
                    "span_id": context.span_id,
                    "parent_span_id": context.parent_span_id,
                    "request_id": context.request_id,
                    "method": request.method[:20],
                    "path": context.path[:TEXT_MAX],
                    "status": status,
                    "outcome": outcome,
                    "duration_us": round(duration_s * 1e6),
                    "client_gone": request.transport is None,
                    **context.fields,
                }
            )

    # ------------------------------------------------------------------ life

    async def start(self, host: str, port: int) -> None:
        """Listen. `port` is then the real one. Raises OSError."""
        self._runner = web.ServerRunner(
            _Server(
                self.handle,
                request_factory=self._make_request,
                gone=self._look,
                access_log=None,
                keepalive_timeout=KEEPALIVE_S,
                max_line_size=LINE_BYTES_MAX,
                max_field_size=LINE_BYTES_MAX,
                max_headers=HEADERS_MAX,
                lingering_time=1.0,  # read so much of a refused body that the answer gets through
                auto_decompress=False,  # no body is worth a decompression bomb
            ),
            shutdown_timeout=0.1,  # `drain` has waited for whom there is to wait for
        )
        await self._runner.setup()
        # A testbed may hold the port for us, bound but not listening, until we come.
        site = web.TCPSite(self._runner, host.strip("[]"), port, reuse_port=True, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def drain(self, grace_s: float) -> None:
        """Accept no more; return when all that is being answered is, or after `grace_s`.

        A caller who has hung up is not waited for: no answer reaches them, and a service that was
        overloaded has seconds of such work before it.
        """
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
        self._draining = True
        self._look()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._drained.wait()

    def _look(self) -> None:
        """Something has ended, or somebody gone: is anybody still to be answered?"""
        if self._draining and not any(each.transport for each in self._in_flight.values()):
            self._drained.set()

    async def close(self) -> None:
        """Hang up."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _make_request(
        self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any
    ) -> web.BaseRequest:
        return web.BaseRequest(
            message, payload, protocol, writer, task, self._loop, client_max_size=BODY_BYTES_MAX
        )


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _RequestHandler(self, loop=self._loop, **self._kwargs)


class _RequestHandler(RequestHandler):
    """Answers what is not even HTTP, too, as problem+json."""

    __slots__ = ("_gone",)

    def __init__(self, *arguments: Any, gone: Callable[[], None], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._gone = gone

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._gone()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer is not None and request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        error: ServiceError
        if status == 400:
            error = BadRequest((message or "not HTTP/1.1").strip()[:300])
        else:
            error = InternalError("a bug in the service")
        response = problem_response(error)
        response.force_close()
        return response
