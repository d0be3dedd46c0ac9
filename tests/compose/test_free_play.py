"""compose.yaml as `make up` starts it: what answers, what each container may do, who is reached."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from rich.console import Console

from labs.harness.testbed import free_play
from labs.harness.testbed.cluster import until
from tests.compose.conftest import services_of
from tests.compose.engine import ROOT, left_in_engine, require_engine

pytestmark = [pytest.mark.compose, pytest.mark.usefixtures("docker_services")]

READY_WITHIN_S = 60.0
ROLES = [*["follower"] * 4, "leader"]


def brokers() -> list[str]:
    names = ("KAFKA_PORT", "KAFKA_2_PORT", "KAFKA_3_PORT")
    return [f"127.0.0.1:{os.environ[name]}" for name in names]


def docker(*words: str) -> None:
    subprocess.run(["docker", *words], capture_output=True, check=True)


def inspect(project: str) -> list[dict[str, Any]]:
    command = ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={project}"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    shown = subprocess.run(["docker", "inspect", *names], capture_output=True, check=True).stdout
    found: list[dict[str, Any]] = json.loads(shown)
    return found


def service(container: dict[str, Any]) -> str:
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


async def leader(session: aiohttp.ClientSession) -> int:
    """The number of the node that leads, once the others follow it.

    For now: while three brokers start beside them, the nodes may elect another one any moment.
    """

    async def look() -> int:
        said = [await free_play._get(session, f"n{number}", "/status") for number in range(1, 6)]
        roles = [each["role"] if each else "" for each in said]
        return roles.index("leader") + 1 if sorted(roles) == ROLES else 0

    return await until(look, READY_WITHIN_S, "one node leads, the others follow")


async def test_five_nodes_answer_and_replicate() -> None:
    """A write over a client's link to the leader is read over another client's."""
    await free_play._wait_for_nodes()
    async with aiohttp.ClientSession() as session:

        async def written_and_read() -> bool:
            number = await leader(session)
            over_c1, over_c2 = (
                f"http://127.0.0.1:{free_play.port(client + number)}/kv/greeting"
                for client in (100, 200)
            )
            async with session.put(over_c1, json={"value": "hello"}) as put:
                if put.status != 200:  # it led no longer
                    return False
            async with session.get(over_c2) as got:
                said = await got.json()
                assert got.status != 200 or said["value"] == "hello"
                return got.status == 200

        await until(written_and_read, READY_WITHIN_S, "what c1 wrote is read by c2")


async def test_the_load_balancer_finds_the_leader(docker_compose_project_name: str) -> None:
    """Its profile starts it; what is written to it alone reaches whoever leads."""
    await free_play._wait_for_nodes()
    files = ("-f", str(ROOT / "compose.yaml"), "-p", docker_compose_project_name)
    compose = ("compose", *files, "--profile", "load-balancer")
    await asyncio.to_thread(docker, *compose, "up", "-d", "--no-build", "load-balancer")
    url = f"http://127.0.0.1:{free_play.port(0)}"
    try:
        async with aiohttp.ClientSession() as session:

            async def ready() -> bool:
                try:
                    async with session.get(f"{url}/health/ready") as got:
                        return got.status == 200
                except aiohttp.ClientError:
                    return False

            await until(ready, READY_WITHIN_S, "the load balancer is ready")

            async def served_by_the_leader() -> bool:
                before = await leader(session)
                async with session.get(f"{url}/status") as got:
                    told = (await got.json())["backends"]
                if [name for name, each in told.items() if each["available"]] != [f"n{before}"]:
                    return False  # it has not seen the last election yet: three checks of 250 ms
                async with session.put(f"{url}/kv/balanced", json={"value": "hello"}) as put:
                    status, served = put.status, put.headers.get("X-Served-By")
                if await leader(session) != before:  # it was another one's turn in between
                    return False
                assert (status, served) == (200, f"n{before}")
                return True

            for _ in range(5):
                await until(served_by_the_leader, READY_WITHIN_S, "one node leads meanwhile")
    finally:
        await asyncio.to_thread(docker, *compose, "rm", "-s", "-f", "-v", "load-balancer")


async def test_status_tells_roles_and_who_reaches_whom() -> None:
    """`make status`, `make cut`, `make heal`: a cut link is shown, and gone after the heal."""
    await free_play._wait_for_nodes()

    def told() -> str:
        out = io.StringIO()
        assert free_play.status(Console(file=out, width=140)) == 0
        return out.getvalue()

    async def all_roles() -> bool:
        shown = await asyncio.to_thread(told)
        return (shown.count("leader"), shown.count("follower")) == (1, 4)

    quiet = Console(file=io.StringIO())
    await until(all_roles, READY_WITHIN_S, "one leader and four followers are told")
    assert await asyncio.to_thread(free_play.cut, quiet, "n1", "n2", "refuse") == 0
    try:
        assert "✂ refuse" in await asyncio.to_thread(told)
        assert await asyncio.to_thread(free_play.cut, quiet, "n1", "n9", "refuse") == 2
        assert await asyncio.to_thread(free_play.cut, quiet, "n1", "n2", "loss") == 2
    finally:
        assert await asyncio.to_thread(free_play.heal, quiet) == 0
    assert "✂ refuse" not in await asyncio.to_thread(told)


def test_no_container_may_do_more_than_it_must(docker_compose_project_name: str) -> None:
    """No capability, no new privilege, not root, a read-only root, memory and processes limited."""
    containers = inspect(docker_compose_project_name)

    assert len(containers) == 1 + 2 * (5 + 1 + 3)
    for container in containers:
        name, host = service(container), container["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert not host["Privileged"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] > 0, name
        assert host["PidsLimit"] > 0, name
        assert container["Config"]["User"].partition(":")[0] not in ("", "0", "root"), name


def test_every_profile_is_held_to_the_same() -> None:
    """Also what is not started here: places for load balancer, cache and consumer."""
    command = ["docker", "compose", "--profile", "*", "config", "--format", "json"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    services = json.loads(shown)["services"]

    assert {"load-balancer", "cache", "consumer"} <= set(services)
    for name, each in services.items():
        assert each["read_only"], name
        assert each["cap_drop"] == ["ALL"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert int(each["mem_limit"]) > 0, name
        assert each["pids_limit"] > 0, name
        assert all(port["host_ip"] == "127.0.0.1" for port in each.get("ports", [])), name


def test_ports_are_published_on_loopback_alone(docker_compose_project_name: str) -> None:
    """Nobody on the network of this machine reaches a container."""
    published = {
        binding["HostIp"]
        for container in inspect(docker_compose_project_name)
        for bindings in (container["HostConfig"]["PortBindings"] or {}).values()
        for binding in bindings
    }

    assert published == {"127.0.0.1"}


def test_data_is_in_named_volumes(docker_compose_project_name: str) -> None:
    """What a server must keep is in a volume of its name, and nothing else can be written to."""
    for container in inspect(docker_compose_project_name):
        name = service(container)
        mounts = [mount for mount in container["Mounts"] if mount["Type"] == "volume"]
        volumes = {mount["Name"] for mount in mounts if "data" in mount["Name"]}
        if name.endswith("-app"):
            owner = name.removesuffix("-app")
            assert volumes == {f"{docker_compose_project_name}_{owner}-data"}, name


async def test_redis_answers() -> None:
    """Redis 8, or its stand-in, on its port and over a client's link."""
    client = redis.asyncio.Redis(host="127.0.0.1", port=int(os.environ["REDIS_PORT"]))
    try:
        assert await client.set("key", "value")
        assert int((await client.info("server"))["redis_version"].split(".")[0]) >= 8
    finally:
        await client.aclose()


async def test_three_brokers_lose_one_and_get_it_back(docker_compose_project_name: str) -> None:
    """A killed broker is done without; started again, it comes back into the replicas in sync."""
    app = f"{docker_compose_project_name}-kafka-2-app-1"
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers())
    await until(lambda: _starts(admin), READY_WITHIN_S, "a broker answers")
    producer = AIOKafkaProducer(bootstrap_servers=brokers(), enable_idempotence=True)
    try:
        await until(lambda: _brokers(admin), READY_WITHIN_S, "three brokers")
        await until(lambda: _creates(admin), READY_WITHIN_S, "the topic is created")
        await until(lambda: _all_in_sync(admin), READY_WITHIN_S, "three replicas in sync")
        await producer.start()
        await producer.send_and_wait("events", b"with three")

        await asyncio.to_thread(docker, "kill", app)
        await until(lambda: _sends(producer, b"with two"), READY_WITHIN_S, "two go on")

        await asyncio.to_thread(docker, "start", app)
        await until(lambda: _all_in_sync(admin), READY_WITHIN_S, "the third is in sync again")
        await producer.send_and_wait("events", b"with three again")
        told = [b"with three", b"with two", b"with three again"]
        assert list(dict.fromkeys(await _read("events", told[-1]))) == told
    finally:
        await producer.stop()
        await admin.close()


async def _starts(admin: AIOKafkaAdminClient) -> bool:
    try:
        await admin.start()
    except KafkaError:
        return False
    return True


async def _brokers(admin: AIOKafkaAdminClient) -> bool:
    try:
        return len((await admin.describe_cluster())["brokers"]) == 3
    except KafkaError:  # it asked one that is known, but does not answer yet
        return False


async def _creates(admin: AIOKafkaAdminClient) -> bool:
    try:
        await admin.create_topics([NewTopic("events", 1, 3)])
    except KafkaError:
        return False
    return True


async def _all_in_sync(admin: AIOKafkaAdminClient) -> bool:
    """Whether the topic's one partition is on three brokers, as one that can be asked says."""
    try:
        (described,) = await admin.describe_topics(["events"])
    except KafkaError:  # it asked the one that has just been killed, or is not back yet
        return False
    partitions = described["partitions"]  # a broker that has just come back knows of none yet
    return bool(partitions) and len(partitions[0]["isr"]) == 3


async def _sends(producer: AIOKafkaProducer, value: bytes) -> bool:
    try:
        await producer.send_and_wait("events", value)
    except KafkaError:
        return False
    return True


async def _read(topic: str, last: bytes) -> list[bytes]:
    """The values from the beginning to the first `last`."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=brokers(), auto_offset_reset="earliest")
    await consumer.start()
    values: list[bytes] = []
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            while not values or values[-1] != last:
                values.append((await consumer.getone()).value)
    finally:
        await consumer.stop()
    return values


def test_a_set_up_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """pytest-docker's first pitfall: its set-up runs outside its `try`."""
    require_engine()
    file = tmp_path / "compose.json"
    good = {"image": os.environ["FAULTLINE_IMAGE"], "entrypoint": ["sleep", "60"],
            "pull_policy": "never"}  # fmt: skip
    bad = {**good, "entrypoint": ["/no/such/program"], "depends_on": ["good"]}
    file.write_text(json.dumps({"services": {"good": good, "bad": bad}}))
    project = f"faultline-broken-{tmp_path.name.replace('_', '-')}"

    with pytest.raises(Exception, match="no/such/program"):
        services_of(file, project, tmp_path / "log").__enter__()

    assert not left_in_engine(f"com.docker.compose.project={project}")
