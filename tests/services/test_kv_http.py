"""The public face of one node, over real HTTP: what is accepted, and what is refused cleanly."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.chassis.clock import Clock
from services.chassis.telemetry import process_log
from tests.services.cluster import CONSENSUS, Cluster, cluster, until
from tests.services.faces import JSON, refuses


@pytest.fixture(params=CONSENSUS)
async def one(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    settings = {"fault_injection": "on", "tick_ms": "2", "protocol": request.param}
    async with cluster(tmp_path, 1, **settings) as made:
        yield made


async def put(one: Cluster, key: str, value: Any, **headers: str) -> tuple[int, Any, Any]:
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return await one.request("PUT", f"/kv/{key}", json={"value": value}, headers=names)


async def test_write_read_delete(one: Cluster) -> None:
    """PUT answers the version (the log index), GET value and ETag, DELETE removes."""
    status, document, headers = await put(one, "a", {"x": [1, 2.5, None, "ü"]})
    assert (status, document["key"], headers["ETag"]) == (200, "a", f'"{document["version"]}"')
    version = document["version"]

    for consistency in (
        "",
        "?consistency=linearizable",
        "?consistency=lease",
        "?consistency=local",
        "?consistency=sequential",
        "?consistency=eventual",
    ):
        status, document, headers = await one.request("GET", f"/kv/a{consistency}")
        assert status == 200
        assert document == {"key": "a", "value": {"x": [1, 2.5, None, "ü"]}, "version": version}
        assert headers["ETag"] == f'"{version}"'

    status, document, _ = await one.request("DELETE", "/kv/a")
    assert (status, document) == (200, {"key": "a", "version": version + 1})
    for method in ("GET", "DELETE"):
        status, document, headers = await one.request(method, "/kv/a")
        assert status == 404
        assert headers["Content-Type"] == "application/problem+json"
        assert document["definite"] is True


async def test_compare_and_set(one: Cluster) -> None:
    """If-Match writes only over its version; 412 answers the current value and version."""
    _, first, _ = await put(one, "a", 1)
    status, second, _ = await put(one, "a", 2, If_Match=f'"{first["version"]}"')
    assert status == 200
    status, document, _ = await put(one, "a", 3, If_Match=f'"{first["version"]}"')
    assert status == 412
    assert document["definite"] is True
    assert (document["value"], document["version"]) == (2, second["version"])

    status, document, _ = await put(one, "a", 3, If_None_Match="*")
    assert (status, document["version"]) == (412, second["version"])
    assert (await put(one, "b", 3, If_None_Match="*"))[0] == 200
    assert (await put(one, "b", 4, If_Match="*"))[0] == 200
    status, document, _ = await put(one, "c", 3, If_Match="*")
    assert (status, document["value"], document["version"]) == (412, None, None)
    status, _, _ = await one.request("DELETE", "/kv/a", headers={"If-Match": '"1"'})
    assert status == 412
    assert (await one.request("GET", "/kv/a"))[1]["value"] == 2


async def test_idempotent_retry(one: Cluster) -> None:
    """The same Idempotency-Key is applied once; with another request it is refused with 422."""
    _, first, _ = await put(one, "a", 1, Idempotency_Key="k1")
    await put(one, "a", 2)
    status, again, _ = await put(one, "a", 1, Idempotency_Key="k1")
    assert (status, again) == (200, first)
    assert (await one.request("GET", "/kv/a"))[1]["value"] == 2, "the retry changed nothing"

    for key, value in (("a", 9), ("b", 1)):
        status, document, _ = await put(one, key, value, Idempotency_Key="k1")
        assert (status, document["definite"]) == (422, True)
    assert (await one.request("GET", "/kv/b"))[0] == 404


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a%2Fb", "a/b"),
        ("a/b", "a/b"),
        ("%C3%BC", "ü"),
        ("a%20b", "a b"),
        ("a%252Fb", "a%2Fb"),
        ("%3Fx", "?x"),
        ("x" * 512, "x" * 512),
        ("..%2F..", "../.."),
    ],
)
async def test_keys(one: Cluster, path: str, key: str) -> None:
    """Keys are percent-decoded once; %2F is a slash inside the key."""
    status, document, _ = await put(one, path, 1)
    assert (status, document["key"]) == (200, key)
    assert (await one.request("GET", f"/kv/{path}"))[1]["key"] == key


VALUE_MAX = json.dumps("x" * (64 * 1024 - 2))
BAD: list[tuple[str, str, Any, dict[str, str], int]] = [
    ("GET", "/kv/a?consistency=causal", None, {}, 400),
    ("GET", "/kv/a?consistency=", None, {}, 400),
    ("GET", "/kv/a?consistency=local&consistency=local", None, {}, 400),
    ("GET", "/kv/a?color=red", None, {}, 400),
    ("GET", "/kv/a?x", None, {}, 400),
    ("GET", "/kv/", None, {}, 400),
    ("GET", "/kv/%zz", None, {}, 400),
    ("GET", "/kv/%ff", None, {}, 400),
    ("GET", "/kv/%00", None, {}, 400),
    ("GET", "/kv/%0A", None, {}, 400),
    ("GET", "/kv/%E2%80%AE", None, {}, 400),
    ("GET", "/kv/" + "x" * 513, None, {}, 400),
    ("GET", "/kv/" + "%C3%BC" * 257, None, {}, 400),
    ("GET", "/kv/" + "x" * 9_000, None, {}, 400),
    ("GET", "/", None, {}, 404),
    ("GET", "/kv", None, {}, 404),
    ("GET", "/nothing", None, {}, 404),
    ("GET", "/../etc/passwd", None, {}, 404),
    ("POST", "/kv/a", '{"value": 1}', JSON, 405),
    ("PATCH", "/kv/a", '{"value": 1}', JSON, 405),
    ("DELETE", "/status", None, {}, 405),
    ("PUT", "/kv/a?consistency=local", '{"value": 1}', JSON, 400),
    ("PUT", "/kv/a", "", JSON, 400),
    ("PUT", "/kv/a", "{", JSON, 400),
    ("PUT", "/kv/a", "[]", JSON, 400),
    ("PUT", "/kv/a", "{}", JSON, 400),
    ("PUT", "/kv/a", '{"value": 1, "ttl": 5}', JSON, 400),
    ("PUT", "/kv/a", '{"value": NaN}', JSON, 400),
    ("PUT", "/kv/a", '{"value": 1e999}', JSON, 400),
    ("PUT", "/kv/a", '{"value": "\\ud800"}', JSON, 400),
    ("PUT", "/kv/a", b'{"value": "\xff"}', JSON, 400),
    ("PUT", "/kv/a", '{"value": 1} x', JSON, 400),
    ("PUT", "/kv/a", "[" * 100_000, JSON, 400),
    ("PUT", "/kv/a", '{"value": ' + "[" * 50_000 + "]" * 50_000 + "}", JSON, 400),
    ("PUT", "/kv/a", '{"value": 1}', {"Content-Type": "text/plain"}, 415),
    ("PUT", "/kv/a", '{"value": 1}', {"Content-Type": "application/jsonx"}, 415),
    ("PUT", "/kv/a", '{"value": "x' + VALUE_MAX[1:] + "}", JSON, 413),
    ("PUT", "/kv/a", '{"value": "' + "x" * 300_000 + '"}', JSON, 413),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"If-Match": "1"}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"If-Match": '"one"'}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"If-Match": 'W/"1"'}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"If-Match": '"99999999999999999999"'}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"If-Match": ""}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"If-None-Match": '"1"'}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"If-Match": "*", "If-None-Match": "*"}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"Idempotency-Key": ""}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"Idempotency-Key": "a b"}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"Idempotency-Key": "k" * 129}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"X-Deadline-Ms": "0"}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"X-Deadline-Ms": "60001"}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"X-Deadline-Ms": "soon"}, 400),
    ("DELETE", "/kv/a", '{"value": 1}', JSON, 400),
    ("POST", "/admin/clock", '{"rate": 0}', JSON, 400),
    ("POST", "/admin/clock", '{"rate": "fast"}', JSON, 400),
    ("POST", "/admin/clock", '{"speed": 1}', JSON, 400),
]


async def test_bad_input_changes_nothing(one: Cluster) -> None:
    """Every bad request gets a 4xx problem document, definite, and changes nothing."""
    store = one.nodes["n1"]
    await put(one, "a", "before")
    before = store.driver.status()["last_index"]
    await refuses(one.request, BAD)
    assert store.driver.status()["last_index"] == before, "nothing was proposed"
    assert (await one.request("GET", "/kv/a"))[1]["value"] == "before"


async def test_value_limits(one: Cluster) -> None:
    """A value of exactly 64 KiB as JSON is accepted."""
    status, _, _ = await one.request(
        "PUT", "/kv/a", data='{"value": ' + VALUE_MAX + "}", headers=JSON
    )
    assert status == 200


async def test_consistency_names_what_is_allowed(one: Cluster) -> None:
    """The answer to an unknown consistency lists the known ones."""
    _, document, _ = await one.request("GET", "/kv/a?consistency=causal")
    assert "linearizable, lease, sequential, local, eventual" in document["detail"]


async def raw(one: Cluster, data: bytes, within_s: float = 10.0) -> bytes:
    """Send bytes as they are; what comes back until the connection is closed."""
    host, _, port = one.addresses["n1"].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    try:
        async with asyncio.timeout(within_s):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish\r\n\r\n",
        b"GET /kv/a HTTP/9.9\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\nbroken header\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
        b"PUT /kv/a HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"PUT /kv/a HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_not_http(one: Cluster, data: bytes) -> None:
    """What is not HTTP gets 400 as problem+json and a closed connection; the node lives on."""
    answer = await raw(one, data)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"application/problem+json" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["definite"] is True
    assert (await one.request("GET", "/health/live"))[0] == 200


async def test_duplicate_header(one: Cluster) -> None:
    """Two If-Match headers are ambiguous and refused."""
    answer = await raw(
        one,
        b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nIf-Match: *\r\nIf-Match: *\r\nConnection: close\r\n"
        b'Content-Length: 11\r\n\r\n{"value":1}',
    )
    assert b" 400 " in answer
    assert b"given 2 times" in answer


async def test_slow_body(one: Cluster) -> None:
    """A body that does not arrive within the deadline: 408, definite, nothing was done."""
    answer = await raw(
        one,
        b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nX-Deadline-Ms: 50\r\nContent-Length: 11\r\n\r\n{",
    )
    assert b" 408 " in answer
    assert (await one.request("GET", "/kv/a"))[0] == 404


async def test_chunked_body_over_the_limit(one: Cluster) -> None:
    """A body of unknown length is cut off at the limit with 413."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = await raw(
        one,
        b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 8,
    )
    assert b" 413 " in answer


async def test_pipelining(one: Cluster) -> None:
    """Pipelined requests are answered in order."""
    request = b"GET /kv/%d HTTP/1.1\r\nHost: x\r\n%s\r\n"
    data = b"".join(request % (n, b"Connection: close\r\n" * (n == 9)) for n in range(10))
    answer = await raw(one, data)
    assert answer.count(b"HTTP/1.1 404") == 10
    assert [b'"key":"%d"' % n in part for n, part in enumerate(answer.split(b"}HTTP"))] == [
        True
    ] * 10


async def test_absolute_form(one: Cluster) -> None:
    """`GET http://host/path` (RFC 9112 §3.2.2) is the same as `GET /path`."""
    answer = await raw(
        one, b"GET http://x/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert b" 200 " in answer


async def test_identity(one: Cluster) -> None:
    """X-Request-Id and traceparent are echoed, or created when absent or malformed."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = {"X-Request-Id": "req-1", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    _, _, headers = await one.request("GET", "/kv/a", headers=sent)
    assert headers["X-Request-Id"] == "req-1"
    assert headers["traceparent"][3:35] == trace
    assert "00f067aa0ba902b7" not in headers["traceparent"], "the node's own span"

    _, _, headers = await one.request("GET", "/kv/a", headers={"traceparent": "zz"})
    assert headers["X-Request-Id"]
    assert len(headers["traceparent"]) == 55


async def test_bug_is_indefinite(one: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unhandled exception is a 500, indefinite; its traceback is in the log, not the answer."""
    monkeypatch.setattr("services.kv.handlers._consistency", lambda query: 1 / 0)
    output = io.StringIO()
    monkeypatch.setattr(one.nodes["n1"].app, "_log", process_log("n1", Clock(), output))
    status, document, _ = await one.request("GET", "/kv/a")
    assert (status, document["definite"]) == (500, False)
    assert "ZeroDivision" not in json.dumps(document)
    assert "ZeroDivisionError: division by zero" in output.getvalue()


async def test_faces(one: Cluster) -> None:
    """Health, status and metrics have what the contract names."""
    assert (await one.request("GET", "/health/live"))[0] == 200
    assert (await one.request("GET", "/health/ready"))[0] == 200
    _, status, _ = await one.request("GET", "/status")
    named = "node protocol role term leader commit_index applied_index last_index peers clock pid"
    assert {*named.split(), "state_digest"} <= status.keys()
    assert {"wall_ms", "monotonic_ms", "offset_ms", "rate"} == status["clock"].keys()
    assert (status["node"], status["leader"]) == ("n1", "n1")
    assert status["role"] in ("leader", "primary", "head")  # as the protocol calls it

    await one.request("GET", "/kv/absent")
    url = f"http://{one.addresses['n1']}/metrics"
    async with one.session.get(url) as response:
        text = await response.text()
    assert 'requests_total{method="GET",outcome="key-not-found"} 1.0' in text
    assert 'requests_total{method="PUT",outcome="internal-error"} 0.0' in text, "before the first"
    assert f'role{{role="{status["role"]}"}} 1.0' in text
    assert "wal_synchronize_seconds_count" in text
    assert "commit_index" in text


async def test_clock_faults(one: Cluster) -> None:
    """POST /admin/clock steps and drifts this node's clock, and repairs it."""
    body = {"offset_ms": 90_000, "rate": 1.25}
    status, _, _ = await one.request("POST", "/admin/clock", json=body)
    _, document, _ = await one.request("GET", "/status")
    assert status == 200
    assert document["clock"]["offset_ms"] == pytest.approx(90_000, abs=2_000)
    assert document["clock"]["rate"] == 1.25
    await one.request("POST", "/admin/clock", json={"offset_ms": 0, "rate": 1})
    _, document, _ = await one.request("GET", "/status")
    assert abs(document["clock"]["offset_ms"]) < 1


async def test_no_clock_faults_by_default(tmp_path: Path) -> None:
    """Without KV_FAULT_INJECTION=on there is no /admin/clock."""
    async with cluster(tmp_path, 1) as made:
        assert (await made.request("POST", "/admin/clock", json={"rate": 2}))[0] == 404


async def test_restart_keeps_data(tmp_path: Path) -> None:
    """What was acknowledged is there after a restart, over snapshots and idempotency keys too."""
    async with cluster(tmp_path, 1, snapshot_entries="10") as made:
        for number in range(25):
            await put(made, f"k{number}", number)
        _, first, _ = await put(made, "once", 1, Idempotency_Key="k")
        await put(made, "once", 2)
        await made.stop("n1")
        await made.start("n1")
        await made.leader()
        for number in range(25):
            assert (await made.request("GET", f"/kv/k{number}"))[1]["value"] == number
        _, again, _ = await put(made, "once", 1, Idempotency_Key="k")
        assert again == first
        assert (await made.request("GET", "/kv/once"))[1]["value"] == 2


async def test_stop_does_not_wait_for_ever(one: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that does not end is hung up on when the grace is over."""
    monkeypatch.setattr("services.chassis.service.GRACE_S", 0.1)
    head = b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nX-Deadline-Ms: 60000\r\nContent-Length: 11\r\n\r\n{"
    slow = asyncio.create_task(raw(one, head))
    node = one.nodes["n1"]
    await until(lambda: node.app._in_flight)
    async with asyncio.timeout(3):
        await one.stop("n1")
    assert await slow == b""
