"""Workers, their store and their resource over real sockets: who may write, and who may not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from services.chassis.config import ConfigError
from services.chassis.errors import BadRequest, NotFound, StaleToken, TooLarge
from services.chassis.machine import Machine
from services.chassis.service import StartError
from services.kv.client import KvClient
from services.resource import WRITES_PER_SNAPSHOT, Resource
from services.resource import make as make_resource
from services.resource.client import ResourceClient
from services.worker import KEY, Worker
from services.worker import make as make_worker
from tests.services.cluster import Cluster, cluster, until


@asynccontextmanager
async def resource(directory: Path, **settings: str) -> AsyncIterator[ResourceClient]:
    """A started resource, and its client."""
    environ = {
        "RESOURCE_NODE": "r1",
        "RESOURCE_LISTEN": "127.0.0.1:0",
        "RESOURCE_DATA_DIR": str(directory / "r1"),
        "RESOURCE_FSYNC": "never",
        **{f"RESOURCE_{key.upper()}": value for key, value in settings.items()},
    }
    made: Resource = make_resource(environ, Machine())
    await made.start()
    client = ResourceClient("r1", f"127.0.0.1:{made.app.port}")
    try:
        yield client
    finally:
        await client.close()
        await made.stop()


# ---------------------------------------------------------------------- the resource


async def test_the_fence_refuses_a_token_that_is_older_than_the_newest(tmp_path: Path) -> None:
    """Kleppmann 2016: the server remembers 34, and rejects the request with token 33."""
    async with resource(tmp_path) as client:
        with pytest.raises(NotFound):
            await client.read()
        assert await client.write("a", token=33) == 1
        assert await client.write("b", token=34) == 2
        with pytest.raises(StaleToken) as refused:
            await client.write("late", token=33)

        assert refused.value.newest == 34
        assert refused.value.definite
        assert await client.write({"c": [None]}, token=34) == 3
        assert await client.read() == {"value": {"c": [None]}, "token": 34, "position": 3}


async def test_without_the_fence_everything_is_taken(tmp_path: Path) -> None:
    """RESOURCE_FENCING=off: the control of the lab."""
    async with resource(tmp_path, fencing="off") as client:
        await client.write("b", token=34)
        assert await client.write("late", token=33) == 2
        assert (await client.read())["value"] == "late"


@pytest.mark.parametrize("writes", [2, WRITES_PER_SNAPSHOT, WRITES_PER_SNAPSHOT + 1])
async def test_the_fence_outlives_a_restart(tmp_path: Path, writes: int) -> None:
    """A fence that forgot would be open to every former holder."""
    async with resource(tmp_path) as client:
        for number in range(writes):
            await client.write(number, token=30 + (number > 0))
    async with resource(tmp_path) as client:
        with pytest.raises(StaleToken):
            await client.write("late", token=30)
        assert await client.read() == {"value": writes - 1, "token": 31, "position": writes}


async def test_what_is_no_write_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """Bad input: 4xx, definite; the fence has not moved."""
    async with resource(tmp_path) as client:
        await client.write("a", token=1)
        for value, token, kind in (
            ("x", 0, BadRequest),
            ("x", -1, BadRequest),
            ("x", 1 << 63, BadRequest),
            ("x", "2", BadRequest),
            ("x", 2.5, BadRequest),
            ("x" * 70_000, 2, TooLarge),
        ):
            with pytest.raises(kind):
                await client.write(value, token=token)  # type: ignore[arg-type]
        assert await client.read() == {"value": "a", "token": 1, "position": 1}


async def test_a_directory_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    """What cannot start says why."""
    async with resource(tmp_path):
        with pytest.raises(StartError, match="another process uses this directory"):
            async with resource(tmp_path):
                pass


# ---------------------------------------------------------------------- the worker


class Office:
    """A store of one node, a resource, and workers by name."""

    def __init__(self, directory: Path, store: Cluster, resource: ResourceClient) -> None:
        self.directory = directory
        self.store = store
        self.resource = resource
        self.workers: dict[str, Worker] = {}

    async def hire(self, name: str, **settings: str) -> Worker:
        peers = {**self.store.addresses, "r1": self.resource.address}
        environ = {
            "WORKER_NODE": name,
            "WORKER_LISTEN": "127.0.0.1:0",
            "WORKER_PEERS": ",".join(f"{peer}={at}" for peer, at in peers.items()),
            "WORKER_RESOURCE": "r1",
            "WORKER_TELEMETRY": str(self.directory / f"{name}.jsonl"),
            "WORKER_WORK_MS": "5",
            **{f"WORKER_{key.upper()}": value for key, value in settings.items()},
        }
        self.workers[name] = make_worker(environ, Machine())
        await self.workers[name].start()
        return self.workers[name]

    def events(self, name: str, event: str) -> list[dict[str, Any]]:
        self.workers[name].telemetry.flush()
        lines = (self.directory / f"{name}.jsonl").read_text().splitlines()
        return [told for told in map(json.loads, lines) if told["event"] == event]

    def acts(self, name: str, outcome: str = "ok") -> list[dict[str, Any]]:
        return [act for act in self.events(name, "call") if act["outcome"] == outcome]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with cluster(tmp_path, 1, tick_ms="2") as store, resource(tmp_path) as guarded:
        made = Office(tmp_path, store, guarded)
        try:
            yield made
        finally:
            await asyncio.gather(*(worker.stop() for worker in made.workers.values()))


async def test_one_of_two_acts_and_a_clean_stop_hands_over_at_once(office: Office) -> None:
    """Who stops in order clears the key: the next one need not wait for the term's end."""
    first = await office.hire("w1", term_ms="10000")
    await until(lambda: len(office.acts("w1")) >= 10)
    await office.hire("w2", term_ms="10000")
    await until(lambda: office.workers["w2"].elector.known)
    assert office.workers["w2"].details()["holder"] == "w1"
    assert not office.acts("w2")

    await first.stop()
    await until(lambda: len(office.acts("w2")) >= 10, within_s=9.9)
    mine, theirs = office.acts("w1"), office.acts("w2")
    assert max(act["token"] for act in mine) < min(act["token"] for act in theirs)
    assert max(act["position"] for act in mine) < min(act["position"] for act in theirs)
    assert office.events("w1", "lose")[-1]["reason"] == "resigned"
    del office.workers["w1"]


async def test_a_fenced_worker_steps_down(office: Office) -> None:
    """The resource has seen a greater token: it learns that it was deposed, and acts no more."""
    worker = await office.hire("w1", term_ms="60000")
    await until(lambda: office.acts("w1"))
    token = worker.elector.token
    assert token is not None
    await office.resource.write("by somebody else", token=token + 1_000_000)
    await until(lambda: office.acts("w1", StaleToken.slug) and office.events("w1", "lose"))

    assert office.events("w1", "lose")[0]["reason"] == "fenced"


async def test_a_lease_of_somebody_else_runs_out(office: Office) -> None:
    """Whatever stands in the key, it counts as a holder that is never seen again."""
    async with KvClient(office.store.addresses) as client:
        await client.put(KEY, ["no", "record"])
    await office.hire("w1", term_ms="200")

    await until(lambda: len(office.acts("w1")) >= 5)
    assert office.workers["w1"].details()["role"] == "holder"


async def test_without_the_store_nobody_acts_longer_than_the_term(office: Office) -> None:
    """A lease that can't be renewed ends; the worker says that it is not ready."""
    worker = await office.hire("w1", term_ms="300")
    await until(lambda: office.acts("w1"))
    await office.store.stop("n1")

    await until(lambda: worker.not_ready() and worker.details()["role"] == "contender")
    await until(lambda: office.events("w1", "lose"))
    assert office.events("w1", "lose")[0]["reason"] == "expired"
    acts = worker.details()["acts"]
    with suppress(AssertionError):  # several terms later it still has not
        await until(lambda: worker.details()["acts"] > acts + worker.config.hands, within_s=0.5)
    assert worker.details()["acts"] <= acts + worker.config.hands
    await office.store.start("n1")
    await until(lambda: worker.details()["role"] == "holder")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"WORKER_RESOURCE": "r2"}, "WORKER_RESOURCE=r2: allowed is one of WORKER_PEERS"),
        ({"WORKER_PEERS": "r1=127.0.0.1:1"}, "the resource and a node of the store"),
        ({"WORKER_TERM_MS": "0"}, "WORKER_TERM_MS='0': allowed is a whole number from 10"),
        ({"WORKER_HAND": "2"}, "the nearest is WORKER_HANDS"),
    ],
)
async def test_a_wrong_setting_is_refused_before_anything_starts(
    changed: dict[str, str], said: str
) -> None:
    """One line: the key, the value, what is allowed."""
    environ = {
        "WORKER_NODE": "w1",
        "WORKER_LISTEN": "127.0.0.1:0",
        "WORKER_PEERS": "n1=127.0.0.1:1,r1=127.0.0.1:2",
        "WORKER_RESOURCE": "r1",
        **changed,
    }
    with pytest.raises(ConfigError, match=said):
        make_worker(environ, Machine())
