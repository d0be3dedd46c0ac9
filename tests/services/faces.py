"""An HTTP face as anybody may meet it: a request as it stands, bad ones refused, any at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

Subject = TypeVar("Subject")
Answered = tuple[int, Any, Any]
# request(method, path, data=…, headers=…) → (status, document, headers)
Request = Callable[..., Awaitable[Answered]]
# method, path, body, headers
Asked = tuple[str, str, bytes | None, Mapping[str, str]]
JSON = {"Content-Type": "application/json"}


async def ask(
    session: aiohttp.ClientSession, address: str, method: str, path: str, **kwargs: Any
) -> Answered:
    """One request, its path as it stands; the document is decoded where it says to be JSON."""
    url = URL(f"http://{address}{path}", encoded=True)
    async with session.request(method, url, **kwargs) as response:
        data = await response.read()
        is_json = bool(data) and "json" in response.headers.get("Content-Type", "")
        return response.status, json.loads(data) if is_json else data, response.headers


async def refuses(
    request: Request, bad: Iterable[tuple[str, str, Any, dict[str, str], int]]
) -> None:
    """Every one gets its 4xx as an RFC 9457 problem document that says: it did not happen."""
    for method, path, body, headers, expected in bad:
        status, document, answered = await request(method, path, data=body, headers=headers)
        told = (method, path[:60], str(body)[:60], headers, document)
        assert status == expected, told
        assert answered["Content-Type"] == "application/problem+json", told
        assert {"type", "title", "status", "detail", "definite"} <= document.keys(), told
        assert (document["status"], document["definite"]) == (expected, True), told
        assert status != 405 or answered["Allow"], told


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.one_of(
    st.sampled_from(["a", "b", "%2F", "%", "%ff", "", ".."]),
    st.text(max_size=20).map(lambda text: quote(text, safe="")),
)
_HEADER_VALUES = st.one_of(
    st.sampled_from(["*", '"1"', "1", "application/json", "", "99999", "50", "text/html"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
)


def anything(
    paths: st.SearchStrategy[str],
    documents: st.SearchStrategy[Any],
    headers: Iterable[str] = (),
) -> st.SearchStrategy[Asked]:
    """Requests of any method to `paths`: bodies of `documents`, any JSON, or any bytes; a few
    `headers` beside those that every face reads."""
    names = ["Content-Type", "X-Deadline-Ms", "X-Request-Id", "traceparent", "Accept", *headers]
    return st.tuples(
        st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS"]),
        paths,
        st.none()
        | st.binary(max_size=60)
        | (documents | VALUES).map(lambda document: json.dumps(document).encode()),
        st.dictionaries(st.sampled_from(names), _HEADER_VALUES, max_size=3),
    )


@contextmanager
def standing(
    context: AbstractAsyncContextManager[Subject],
) -> Iterator[tuple[asyncio.Runner, Subject]]:
    """What the context gives, for hypothesis, which calls from outside the event loop."""
    with asyncio.Runner() as runner:
        subject = runner.run(context.__aenter__())
        try:
            yield runner, subject
        finally:
            runner.run(context.__aexit__(None, None, None))


def fuzz(
    runner: asyncio.Runner, request: Request, asked: st.SearchStrategy[Asked], examples: int = 300
) -> None:
    """Whatever is asked: an answer below 500, an error is a problem document; it lives on."""

    async def one(asked: Asked) -> Answered:
        method, path, body, headers = asked
        # A deadline of a few milliseconds may rightly pass: that is a 504, and no bug.
        if headers.get("X-Deadline-Ms", "").strip().isdigit():
            headers = {**headers, "X-Deadline-Ms": "9999"}
        return await request(method, path, data=body, headers={**JSON, **headers})

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(asked)
    def each(asked: Asked) -> None:
        status, document, answered = runner.run(one(asked))
        assert status < 500, document
        if status >= 400 and asked[0] != "HEAD":
            assert answered["Content-Type"] == "application/problem+json"
            assert document["status"] == status

    each()
    assert runner.run(request("GET", "/health/live"))[0] == 200
