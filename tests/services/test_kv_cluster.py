"""Three nodes over real HTTP and WebSockets: hints, deadlines, traces, restarts, each protocol."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.chassis.errors import Indefinite, ServiceError
from services.kv.client import KvClient
from tests.services.cluster import CONSENSUS, Cluster, cluster, until


@pytest.fixture(params=CONSENSUS)
async def three(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path, 3, protocol=request.param) as made:
        yield made


async def put(made: Cluster, node: str, key: str, value: Any, **headers: str) -> Any:
    return await made.request("PUT", f"/kv/{key}", node, json={"value": value}, headers=headers)


async def test_replication(three: Cluster) -> None:
    """A write at the leader can soon be read locally at every node, under the same version."""
    leader = await three.leader()
    _, written, _ = await put(three, leader, "a", 1)
    for node in three.nodes.values():
        await until(lambda n=node: n.driver.applied_index >= written["version"])
    for node in three.addresses:
        status, document, _ = await three.request("GET", "/kv/a?consistency=local", node)
        assert (status, document["value"], document["version"]) == (200, 1, written["version"])


async def test_hint(three: Cluster) -> None:
    """A follower refuses writes and linearizable reads with 421 and the leader's name; save that
    any member of a chain reads."""
    leader = await three.leader()
    follower = next(node for node in three.addresses if node != leader)
    reads = [
        await three.request("GET", "/kv/a", follower),
        await three.request("GET", "/kv/a?consistency=lease", follower),
    ]
    if three.settings["protocol"] == "chain":
        assert [status for status, _, _ in reads] == [404, 404]
        reads = []
    for answer in (
        await put(three, follower, "a", 1),
        await three.request("DELETE", "/kv/a", follower),
        *reads,
    ):
        status, document, _ = answer
        assert (status, document["leader"], document["definite"]) == (421, leader, True)
        assert document["title"] == "not the leader"


async def test_minority(three: Cluster) -> None:
    """Without a quorum a write ends as 504, indefinite, and later as 503; local reads go on."""
    leader = await three.leader()
    await put(three, leader, "a", 1)
    await three.stop(*[node for node in three.addresses if node != leader])
    status, document, _ = await put(three, leader, "a", 2, **{"X-Deadline-Ms": "60"})
    assert (status, document["definite"]) == (504, False)
    # Check quorum: the leader steps down, then nobody is known to lead.
    await until(lambda: three.nodes[leader].driver.status()["leader"] is None)
    status, document, headers = await put(three, leader, "a", 3)
    assert (status, document["definite"], document["leader"]) == (503, True, None)
    assert headers["Retry-After"]
    status, document, _ = await three.request("GET", "/health/ready", leader)
    assert status == 503
    assert (await three.request("GET", "/health/live", leader))[0] == 200
    status, document, _ = await three.request("GET", "/kv/a?consistency=local", leader)
    assert (status, document["value"]) == (200, 1)


def refused(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) != 0


async def test_graceful_stop(three: Cluster) -> None:
    """A stopping node accepts no more, and answers what it is working on."""
    leader = await three.leader()
    await three.stop(*[node for node in three.addresses if node != leader])
    write = asyncio.create_task(put(three, leader, "a", 1, **{"X-Deadline-Ms": "1000"}))
    node = three.nodes[leader]
    await until(lambda: node.driver.status()["last_index"] > node.driver.applied_index)
    stopping = asyncio.create_task(three.stop(leader))
    await until(lambda: refused(three.addresses[leader]))
    assert not write.done()
    status, document, _ = await write
    assert (status, document["definite"]) == (504, False)
    await stopping


async def test_trace(three: Cluster) -> None:
    """The client's trace is in the wide events of all nodes that handled its write."""
    leader = await three.leader()
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "X-Request-Id": "req-1"}
    await put(three, leader, "a", 1, **sent)

    def spans(node: str) -> list[dict[str, Any]]:
        return [event for event in three.events(node) if event.get("trace_id") == trace]

    await until(lambda: all(spans(node) for node in three.addresses))
    request = next(event for event in spans(leader) if event["event"] == "request")
    assert request["parent_span_id"] == "00f067aa0ba902b7"
    assert (request["request_id"], request["status"], request["outcome"]) == ("req-1", 200, "ok")
    assert request["duration_us"] > 0
    for node in three.addresses:
        if node != leader:
            replicate = spans(node)[0]
            assert replicate["event"] == "replicate"
            assert replicate["parent_span_id"] == request["span_id"]
    names = {event["event"] for node in three.addresses for event in three.events(node)}
    assert "become_leader" in names


@pytest.mark.parametrize("protocol", CONSENSUS)
async def test_follower_restarts_behind_a_snapshot(tmp_path: Path, protocol: str) -> None:
    """A follower that missed more than the log still holds is brought up by a snapshot."""
    async with cluster(tmp_path, 3, snapshot_entries="20", protocol=protocol) as made:
        leader = await made.leader()
        follower = next(node for node in made.addresses if node != leader)
        await made.stop(follower)
        for number in range(60):
            await put(made, leader, f"k{number}", "x" * 1000)
        await made.start(follower)
        node = made.nodes[follower]
        await until(lambda: node.driver.applied_index >= made.nodes[leader].driver.applied_index)
        status, document, _ = await made.request("GET", "/kv/k59?consistency=local", follower)
        assert (status, document["value"]) == (200, "x" * 1000)


@pytest.mark.parametrize("protocol", CONSENSUS)
async def test_all_restart(tmp_path: Path, protocol: str) -> None:
    """Acknowledged writes survive a restart of all nodes (with real fdatasync)."""
    async with (
        cluster(tmp_path, 3, fsync="always", protocol=protocol) as made,
        KvClient(made.addresses, retries=20) as client,
    ):
        replies = await asyncio.gather(
            *(client.put(f"k{n}", n, deadline_ms=5000, idempotency_key=f"i{n}") for n in range(50))
        )
        assert len({reply.version for reply in replies}) == 50
        await made.stop()
        await made.start()
        await made.leader()
        for number in range(50):
            assert (await client.get(f"k{number}", deadline_ms=5000)).value == number


@pytest.mark.parametrize("acknowledgement", ["asynchronous", "semi_synchronous", "synchronous"])
async def test_primary_backup(tmp_path: Path, acknowledgement: str) -> None:
    """The same face over primary-backup; the roles are its own words."""
    settings = {"protocol": "primary_backup", "acknowledgement": acknowledgement}
    async with (
        cluster(tmp_path, 3, **settings) as made,
        KvClient(made.addresses, retries=20) as client,
    ):
        await client.put("a", 1, deadline_ms=5000)
        await client.put("a", 2, deadline_ms=5000)
        assert (await client.get("a", deadline_ms=5000)).value == 2
        roles = {(await client.status(node))["role"] for node in made.addresses}
        assert roles == {"primary", "backup"}
        await made.stop()
        await made.start()
        await made.leader()
        assert (await client.get("a", deadline_ms=5000)).value == 2


async def test_naive_promotion_loses_a_write(tmp_path: Path) -> None:
    """The control: a write acknowledged by the old primary alone is gone after a naive promotion.

    The old primary comes back as a backup, discards it and rebuilds its state machine.
    """
    settings = {"protocol": "primary_backup", "promotion": "naive"}
    async with cluster(tmp_path, 3, **settings) as made:
        old = await made.leader()
        others = [node for node in made.addresses if node != old]
        await put(made, old, "a", "both")
        await until(lambda: all(n.driver.applied_index for n in made.nodes.values()))
        await made.stop(*others)
        assert (await put(made, old, "a", "lost"))[0] == 200
        assert (await put(made, old, "b", "lost"))[0] == 200
        await made.stop(old)
        await made.start(*others)
        new = await until(
            lambda: next(
                (n for n in others if made.nodes[n].driver.status()["role"] == "primary"), None
            )
        )
        assert (await put(made, new, "c", "kept"))[0] == 200
        await made.start(old)
        await until(lambda: made.nodes[old].driver.status()["role"] == "backup")
        await until(lambda: made.nodes[old].driver.status()["leader"] == new)
        node = made.nodes[old].driver
        await until(lambda: node.applied_index >= made.nodes[new].driver.applied_index)
        last = made.nodes[new].driver.status()["last_index"]
        await until(lambda: made.nodes[old].driver.status()["last_index"] == last)
        for name in (old, new):
            answers = [
                (await made.request("GET", f"/kv/{key}?consistency=local", name))[1].get("value")
                for key in "abc"
            ]
            assert answers == ["both", None, "kept"], name


async def test_leader_change_under_load(three: Cluster) -> None:
    """While leaders come and go, nothing that was acknowledged is lost."""
    acknowledged: dict[str, int] = {}
    stop = asyncio.Event()

    async def write(worker: int, client: KvClient) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            key = f"w{worker}"
            try:
                await client.put(
                    key, number, idempotency_key=f"{worker}-{number}", deadline_ms=2_000
                )
            except ServiceError:
                continue
            acknowledged[key] = number

    async with KvClient(three.addresses, retries=20) as client:
        tasks = [asyncio.create_task(write(worker, client)) for worker in range(4)]
        for _ in range(2):
            before = dict(acknowledged)
            await until(lambda b=before: len(acknowledged) == 4 and acknowledged != b)
            leader = await three.leader()
            await three.stop(leader)
            await three.leader()
            await three.start(leader)
            await three.leader()
        stop.set()
        await asyncio.gather(*tasks)
        for key, number in acknowledged.items():
            assert (await client.get(key, deadline_ms=10_000)).value >= number


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start_process(tmp_path: Path, port: int, **extra: str) -> subprocess.Popen[str]:
    environ = {
        **os.environ,
        "KV_NODE": "n1",
        "KV_LISTEN": f"127.0.0.1:{port}",
        "KV_DATA_DIR": str(tmp_path / "n1"),
        "KV_TELEMETRY": str(tmp_path / "n1.jsonl"),
        "KV_TICK_MS": "5",
        **extra,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "services.kv"], env=environ, stderr=subprocess.PIPE, text=True
    )


async def test_process_stops_gracefully(tmp_path: Path) -> None:
    """kill -9 loses nothing that was acknowledged; SIGTERM ends with exit code 0."""
    port = free_port()
    process = start_process(tmp_path, port)
    async with KvClient({"n1": f"127.0.0.1:{port}"}) as client:
        try:
            await put_within(client, "a", 1)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            process = start_process(tmp_path, port)
            await put_within(client, "b", 2)
            assert (await client.get("a")).value == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            stderr = process.communicate()[1]
    lines = [json.loads(line) for line in stderr.splitlines()]
    assert [line["event"] for line in lines] == ["started", "stopped"]
    events = [
        json.loads(line)["event"] for line in (tmp_path / "n1.jsonl").read_text().splitlines()
    ]
    assert events.count("start") == 2
    assert events[-1] == "stop", "telemetry is flushed at the end"


async def put_within(client: KvClient, key: str, value: Any, within_s: float = 15.0) -> None:
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        try:
            await client.put(key, value)
            return
        except (ServiceError, Indefinite):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)


async def test_process_refuses_to_start(tmp_path: Path) -> None:
    """A directory in use, a damaged log, a port in use: one line and an exit code each."""
    port = free_port()
    first = start_process(tmp_path, port)
    async with KvClient({"n1": f"127.0.0.1:{port}"}) as client:
        try:
            await put_within(client, "a", 1)
            second = start_process(tmp_path, free_port())
            said = (await asyncio.to_thread(second.communicate, timeout=60))[1]
            assert second.returncode == 74
            assert said.count("\n") == 1
            assert "another process uses this directory" in said
        finally:
            first.kill()
            first.communicate()
    wal = tmp_path / "n1" / "wal-0000000000000000"
    data = bytearray(wal.read_bytes())
    data[5] ^= 1
    wal.write_bytes(data)
    third = start_process(tmp_path, port)
    said = (await asyncio.to_thread(third.communicate, timeout=60))[1]
    assert third.returncode == 74
    assert "damaged at offset 0" in said
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        fourth = start_process(tmp_path / "other", port)
        said = (await asyncio.to_thread(fourth.communicate, timeout=60))[1]
    assert fourth.returncode == 71
    assert "cannot start" in said
