"""Faces with no fuzzing of their own: the store, with a leader and without, and the small ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from hypothesis import strategies as st

from services import resource, web
from services.chassis.machine import Machine
from services.chassis.service import Service
from services.kv import LEADERLESS
from tests.services.cluster import cluster, leaderless
from tests.services.faces import KEYS, VALUES, Request, anything, ask, fuzz, standing

STORE = anything(
    st.tuples(
        KEYS,
        st.sampled_from(["", "", "?consistency=local", "?consistency=eventual",
                         "?consistency=quorum", "?consistency=", "?context=1", "?x"]),
    ).map(lambda parts: f"/kv/{parts[0]}{parts[1]}")
    | st.sampled_from(["/", "/kv", "/status", "/metrics", "/health/ready", "/admin/clock",
                       "/counters/a", "/sets/a", "/sequences/a", "/sets/", "/counters/%00"]),
    st.fixed_dictionaries({"value": VALUES}, optional={"context": VALUES})
    | st.dictionaries(st.sampled_from(["increment", "add", "remove", "insert", "after", "delete"]),
                      VALUES, min_size=1, max_size=2),
    ["If-Match", "If-None-Match", "Idempotency-Key", "Session-Token"],
)  # fmt: skip


@pytest.mark.parametrize("protocol", ["raft", *LEADERLESS])
def test_the_store(tmp_path: Path, protocol: str) -> None:
    """Every answer below 500, and an error is a problem document; the node lives on."""
    if protocol in LEADERLESS:
        alone = leaderless(tmp_path, protocol, 1, fault_injection="on")
    else:
        alone = cluster(tmp_path, 1, protocol=protocol, fault_injection="on")
    with standing(alone) as (runner, made):
        fuzz(runner, made.request, STORE)


@pytest.mark.parametrize(
    ("make", "prefix", "own", "paths"),
    [
        (web.make, "WEB_", {"SERVICE_MS": "0"}, ["/work", "/work?x"]),
        (resource.make, "RESOURCE_", {"FSYNC": "never"}, ["/value", "/value?x"]),
    ],
    ids=["web", "resource"],
)
def test_small_faces(
    tmp_path: Path,
    make: Callable[[Mapping[str, str], Machine], Service],
    prefix: str,
    own: Mapping[str, str],
    paths: list[str],
) -> None:
    """As the store."""
    asked = anything(
        st.sampled_from([*paths, "/", "/status", "/metrics", "/health/ready", "/admin/clock"]),
        st.fixed_dictionaries({"value": VALUES, "token": VALUES}),
    )
    environ = {"NODE": "r1", "LISTEN": "127.0.0.1:0", "TELEMETRY": str(tmp_path / "e.jsonl"), **own}
    if prefix == "RESOURCE_":
        environ["DATA_DIR"] = str(tmp_path)
    context = _alone(make, {f"{prefix}{key}": value for key, value in environ.items()})
    with standing(context) as (runner, request):
        fuzz(runner, request, asked, examples=150)


@asynccontextmanager
async def _alone(
    make: Callable[[Mapping[str, str], Machine], Service], environ: Mapping[str, str]
) -> AsyncIterator[Request]:
    async with aiohttp.ClientSession() as session:
        made = make(environ, Machine())
        await made.start()
        try:
            yield partial(ask, session, f"127.0.0.1:{made.app.port}")
        finally:
            await made.stop()
