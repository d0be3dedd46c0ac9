"""The parts that members are made of: description, questions, settings, what is installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from labs.harness.nemesis import ShapeError
from labs.harness.testbed.cluster import NodeExited, TestbedError, TimedOut, until
from labs.harness.testbed.description import ClusterSpec, MemberSpec, NodeSpec
from labs.harness.testbed.launcher import ROOT
from labs.harness.testbed.local import LocalTestbed
from labs.harness.testbed.members import (
    KINDS,
    kafka,
    kafka_advertiser,
    kafka_broker,
    kafka_install,
    memcached,
    redis,
)
from labs.harness.testbed.members.kafka_broker import Listener
from labs.harness.testbed.ports import PortReservation
from labs.harness.testbed.readiness import unready
from tests.harness.testbed.contract import READY_WITHIN_S
from tests.harness.testbed.members import a_nemesis, member_cluster
from tests.harness.testbed.test_local import MODULES

REDIS = MemberSpec("redis", "redis")


# ------------------------------------------------------------------ description


def test_each_group_and_each_node_has_a_link_to_each_member() -> None:
    """And none from a member: it opens no connection."""
    nodes = (NodeSpec("n1", "kv"), NodeSpec("n2", "kv"))
    spec = ClusterSpec("x", nodes, ("c1",), members=(REDIS, MemberSpec("event-log", "kafka")))

    assert [str(link) for link in spec.links] == [
        *("c1→n1", "c1→n2", "n1→n2", "n2→n1"),
        *("c1→redis", "c1→event-log", "n1→redis", "n1→event-log", "n2→redis", "n2→event-log"),
    ]
    assert [str(link) for link in spec.links_to("redis")] == ["c1→redis", "n1→redis", "n2→redis"]
    assert spec.member("event-log").environment_key == "MEMBER_EVENT_LOG"


def test_a_node_that_dials_nobody_else_has_no_other_link() -> None:
    """And a cluster that knows nobody of the name that a node is to dial is refused."""
    nodes = (NodeSpec("front", "kv", dials=("back",)), NodeSpec("back", "kv", dials=("redis",)))
    spec = ClusterSpec("x", nodes, ("c1",), members=(REDIS,))

    assert [str(link) for link in spec.links] == [
        *("c1→front", "c1→back", "front→back", "c1→redis", "back→redis"),
    ]
    with pytest.raises(ValueError, match="has no back to dial"):
        ClusterSpec("x", nodes[:1])


def test_what_is_optional_is_left_out_with_who_dials_it() -> None:
    """A cluster goes without a server that the machine has not; who needs it goes, too."""
    nodes = (NodeSpec("a", "kv", dials=("redis",)), NodeSpec("b", "kv", dials=("memcached",)),
             NodeSpec("c", "kv", dials=("b",)))  # fmt: skip
    spec = ClusterSpec("x", nodes[:2], ("c1",), members=(
        REDIS, MemberSpec("memcached", "memcached", optional=True)))  # fmt: skip

    assert spec.without(["memcached"]).node_names == ("a",)
    assert spec.without(["memcached"]).member_names == ("redis",)
    assert spec.without([]) == spec
    with pytest.raises(ValueError, match="has no b to dial"):
        ClusterSpec("x", nodes, members=(REDIS, *spec.members[1:])).without(["memcached"])


async def test_a_machine_without_an_optional_server(
    program: Callable[[str, str], None], tmp_path: Path
) -> None:
    """On a machine without Memcached the rest of the cluster starts."""
    members = (MemberSpec("memcached", "memcached", optional=True), REDIS)
    spec = ClusterSpec("x", (), ("c1",), members=members)
    async with (
        LocalTestbed(tmp_path, modules=MODULES) as testbed,
        testbed.cluster(spec) as cluster,
    ):
        await cluster.ready(READY_WITHIN_S)
        assert cluster.members == ("redis",)


def test_members_that_make_no_sense_are_refused() -> None:
    """Names are how faults are aimed, and become parts of file names and environment keys."""
    with pytest.raises(ValueError, match="names something twice"):
        ClusterSpec("x", (NodeSpec("redis", "kv"),), members=(REDIS,))
    for name in ("", "Redis", "../redis", "1", "r" * 33, "a b"):
        with pytest.raises(ValueError, match="a member is named like"):
            MemberSpec(name, "redis")
    with pytest.raises(ValueError, match=r"kind is one of redis, kafka.*, not 'rabbit'"):
        MemberSpec("x", "rabbit")
    with pytest.raises(ValueError, match="redis reads no files"):
        MemberSpec("redis", "redis", files={"redis.conf": ""})


# ------------------------------------------------------------------ questions


@pytest.mark.parametrize("padding", [0, 4096])
def test_a_question_is_asked_in_the_members_protocol(padding: int) -> None:
    """RESP: an array of bulk strings; Kafka: a size, then header version 1 with a client id."""
    asked = KINDS["redis"].question(padding)
    assert asked.asked.startswith(b"*2\r\n$4\r\nPING\r\n$")
    assert asked.asked.endswith(asked.mark)

    asked = KINDS["memcached"].question(padding)
    assert len(asked.asked) == len(KINDS["memcached"].question().asked) + padding
    assert all(len(key) <= 250 for key in asked.asked.split())

    asked = KINDS["kafka"].question(padding)
    size, api, version, _, client = struct.unpack(">ihhih", asked.asked[:14])
    assert (size + 4, api, version) == (len(asked.asked), 18, 0)
    assert len(asked.asked) == 14 + client
    assert asked.asked.count(asked.mark) == 1


@contextlib.asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that is gone, with its connections, when the scope is left."""
    connections: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.append(task)
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


def answering(answer: bytes | None) -> contextlib.AbstractAsyncContextManager[str]:
    """A server that answers whatever it is asked with `answer`; None: it hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if answer is not None:
            writer.write(answer)
            await reader.read()  # the end

    return serving(serve)


NO_BROKER = struct.pack(">iiii", 20, 0x464C0001, 0, 0)
ONE_BROKER = struct.pack(">iiii", 40, 0x464C0001, 0, 1)


@pytest.mark.parametrize(
    ("kind", "answer", "why"),
    [
        ("redis", b"+PONG\r\n", ""),
        ("redis", b"-LOADING Redis is loading the dataset in memory\r\n", "-LOADING"),
        ("redis", None, "it closed the connection"),
        ("redis", b"", "TimeoutError"),
        ("memcached", b"VERSION 1.6.39\r\n", ""),
        ("memcached", b"ERROR\r\n", "ERROR"),
        ("kafka", ONE_BROKER, ""),
        ("kafka", NO_BROKER, "knows no broker yet"),
        ("kafka", b"HTTP/1.1 400 Bad Request\r\n\r\n", "which is not Kafka's protocol"),
        ("kafka", None, "it closed the connection"),
    ],
)
async def test_why_a_member_is_not_ready(kind: str, answer: bytes | None, why: str) -> None:
    """What it answers, in words; a timeout says at which member it was."""
    async with answering(answer) as address:
        said = await unready(kind, address, 0.2)

    assert why in said
    assert bool(said) == bool(why)
    assert "ConnectionRefusedError" in await unready(kind, address, 0.2)


# ------------------------------------------------------------------ settings of Kafka


def test_each_source_gets_a_listener_that_advertises_its_link() -> None:
    """Else clients would leave their links for the one address that is advertised."""
    settings = kafka_broker.broker_settings(
        {"c1": Listener("127.0.0.1:1", "127.0.0.1:11"), "n-2": Listener("0.0.0.0:2", "links:12")},
        Listener("127.0.0.1:3", "127.0.0.1:3"),
        "127.0.0.1:4",
        "/data",
        {"num.partitions": "7", "num.io.threads": "9"},
    )

    assert settings["listeners"].split(",") == [
        "DIRECT://127.0.0.1:3",
        "FROM_C1://127.0.0.1:1",
        "FROM_N_2://0.0.0.0:2",
        "CONTROLLER://127.0.0.1:4",
    ]
    assert settings["advertised.listeners"].split(",") == [
        "DIRECT://127.0.0.1:3",
        "FROM_C1://127.0.0.1:11",
        "FROM_N_2://links:12",
    ]
    assert settings["num.partitions"] == "7"
    assert settings["num.io.threads"] == "9", "a member's own settings win"
    assert "log.dirs=/data\n" in kafka_broker.properties(settings)


async def test_the_advertiser_changes_addresses_alone(tmp_path: Path) -> None:
    """A record that happens to hold the broker's address arrives as it was sent."""
    answered = b""

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while size := await reader.readexactly(4):
                frame = await reader.readexactly(int.from_bytes(size))
                answer = frame[4:8] + answered
                writer.write(len(answer).to_bytes(4) + answer)

    async def ask(api: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        request = struct.pack(">hhi", api, 0, 77 + api)
        writer.write(len(request).to_bytes(4) + request)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
        assert answer[:4] == (77 + api).to_bytes(4)
        return answer[4:]

    async with serving(broker) as address:
        told = b"127.0.0.1" + struct.pack(">i", int(address.rpartition(":")[2]))
        answered = b"before" + told + b"after"
        ready = tmp_path / "ready"
        async with advertising(address, "127.0.0.1:4711", ready) as link, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*link)
            for api in (3, 10, 60):
                true = b"before127.0.0.1" + struct.pack(">i", 4711) + b"after"
                assert await ask(api, reader, writer) == true
            assert await ask(1, reader, writer) == answered, "Fetch"
            writer.write(b"\0\0\0\1x")
            assert await reader.read() == b"", "what is not Kafka's protocol ends the connection"
            writer.transport.abort()


@contextlib.asynccontextmanager
async def advertising(broker: str, link: str, ready: Path) -> AsyncIterator[tuple[str, int]]:
    """An advertiser before `broker`, as a process; gives where it listens."""
    ports = PortReservation()
    listen = ports.reserve("listener")
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-c",
            f"import os, {kafka_advertiser.__name__} as it; it.main(os.environ)",
        ),
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            kafka_advertiser.BROKER: broker,
            kafka_advertiser.LISTENERS: json.dumps({listen: link}),
            kafka_advertiser.READY_FILE: str(ready),
        },
    )
    try:
        await until(ready.exists, 20, "the advertiser listens")
        host, _, port = listen.rpartition(":")
        yield host, int(port)
    finally:
        process.terminate()
        await process.wait()
        ports.close()


# ------------------------------------------------------------------ which server there is


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a program into an otherwise empty PATH."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    monkeypatch.setenv("PATH", str(bin_))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def put(name: str, script: str) -> None:
        path = bin_ / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return put


JAVA_17 = """echo 'openjdk version "17.0.15" 2025-04-15' >&2"""


@pytest.mark.parametrize(
    ("java", "told"),
    [
        ("", "Java is not here: install Java 17 or newer"),
        ("""echo 'openjdk version "11.0.2" 2019-01-15' >&2""", "is Java 11: install Java 17"),
        ("""echo 'java version "1.8.0_202"' >&2""", "is Java 8: install Java 17"),
        ("echo 'Unable to locate a Java Runtime.' >&2; exit 1", "does not run: install Java 17"),
        (JAVA_17, "Maven is not here: install it"),
    ],
)
def test_make_kafka_says_what_is_missing(
    program: Callable[[str, str], None],
    capsys: pytest.CaptureFixture[str],
    java: str,
    told: str,
) -> None:
    """Exit code 2, one line: what is missing and what to type."""
    if java:
        program("java", java)

    assert kafka_install.main() == 2
    assert told in capsys.readouterr().err
    assert "type make kafka" in kafka_install.missing()
    assert not kafka_install.home().exists()


def test_a_failed_fetch_leaves_nothing(
    program: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a Kafka is never taken for a whole one; what Maven said is told."""
    program("java", JAVA_17)
    program("mvn", "echo 'Could not resolve dependencies'; exit 1")

    assert kafka_install.main() == 2
    assert "Could not resolve dependencies" in capsys.readouterr().err
    assert list(kafka_install.home().parent.iterdir()) == []


def test_the_pom_and_the_directory_agree() -> None:
    """The version stands in both, and can't differ for long."""
    assert kafka_install.POM.read_text().count(f"<version>{kafka_install.VERSION}<") == 2
    assert "://" not in kafka_install.POM.read_text(), "it names a host"


def test_an_installed_redis_will_do(
    program: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where there is no wheel, `redis-server` is taken; where there is neither, that is told."""
    monkeypatch.setattr(redis, "package", lambda _name: tmp_path / "none")
    with pytest.raises(TestbedError, match=r"no Redis on this machine.*install redis-server"):
        redis.find()
    program("redis-server", "echo 'Redis server v=7.0.15 sha=00000000:0 bits=64'")

    path, flavour = redis.find()
    assert (os.path.basename(path), flavour) == ("redis-server", "redis-server 7.0.15")


def test_without_memcached_it_is_told_what_to_install(
    program: Callable[[str, str], None],
) -> None:
    with pytest.raises(TestbedError, match=r"no Memcached on this machine: install memcached"):
        memcached.find()
    program("memcached", "echo 'memcached 1.6.18'")
    assert memcached.find()[1] == "memcached 1.6.18"


def test_the_embedded_broker_says_what_it_is_and_what_it_can_not(
    program: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody takes it for Apache Kafka; and a setting is refused, not ignored."""
    ports = PortReservation()
    member = KINDS["kafka"].local(MemberSpec("kafka", "kafka"), ports)
    assert "embedded tansu broker" in member.flavour
    assert "in memory, no idempotent producer" in member.flavour
    assert "make kafka" in member.flavour
    with pytest.raises(TestbedError, match=r"knows no settings \(num.partitions\).*make kafka"):
        KINDS["kafka"].local(MemberSpec("kafka", "kafka", {"num.partitions": "1"}), ports)
    monkeypatch.setattr(kafka, "package", lambda _name: tmp_path / "none")
    with pytest.raises(TestbedError, match=r"no Kafka on this machine.*make kafka.*make setup"):
        KINDS["kafka"].local(MemberSpec("kafka", "kafka"), ports)
    ports.close()


# ------------------------------------------------------------------ members under faults


async def test_a_member_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    """With its own last words: a setting that Redis does not know."""
    spec = member_cluster(MemberSpec("redis", "redis", {"no-such-setting": "1"}))
    async with LocalTestbed(tmp_path, modules=MODULES) as testbed:
        with pytest.raises(NodeExited, match="no-such-setting"):
            async with testbed.cluster(spec) as cluster:
                await cluster.ready(READY_WITHIN_S)


async def test_a_server_that_can_not_be_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exec fails in the child: its log has the reason."""
    monkeypatch.setattr(redis, "find", lambda: ("/nonexistent/redis", "none"))
    async with LocalTestbed(tmp_path, modules=MODULES) as testbed:
        with pytest.raises(NodeExited, match=r"exit code 127.*\n.*nonexistent/redis can't be run"):
            async with testbed.cluster(member_cluster(REDIS)) as cluster:
                await cluster.ready(READY_WITHIN_S)


async def test_faults_name_members_and_words_do_not(tmp_path: Path) -> None:
    """`all` are the replicas; a clock that is not ours can't be set."""
    async with (
        LocalTestbed(tmp_path, modules=MODULES) as testbed,
        testbed.cluster(member_cluster(REDIS, nodes=2)) as cluster,
    ):
        await cluster.ready(READY_WITHIN_S)
        with a_nemesis(cluster, tmp_path) as nemesis:
            async with nemesis.kill("all") as fault:
                assert fault.record.target == "n1 n2"
                assert cluster.state("redis") == "running"
            async with nemesis.pause(["redis", "n2"]) as fault:
                assert fault.record.target == "n2 redis"
                assert cluster.state("redis") == "paused"
                with pytest.raises(TimedOut, match=r"redis.*paused"):
                    await cluster.ready(0.3, ["redis"])
            assert fault.record.recovered_how.endswith("2 nodes, redis ready")
            with pytest.raises(ShapeError, match="no node 'redis'"):
                async with nemesis.bump("redis", delta_ms=5):
                    pass
