"""When a cluster is ready: what a node's own word does not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from labs.harness.testbed.cluster import TimedOut
from labs.harness.testbed.description import ClusterSpec, MemberSpec, NodeSpec
from labs.harness.testbed.local import LocalTestbed
from labs.harness.testbed.operator import AS_OPERATOR
from labs.harness.testbed.web import web_cluster
from tests.harness.testbed.contract import ECHO, READY_WITHIN_S


async def test_a_cluster_waits_until_its_balancer_has_found_every_backend(tmp_path: Path) -> None:
    """A balancer is ready for users with one backend; an experiment that stops this one next would
    find nobody behind it."""
    spec = web_cluster("web", balancers={"front": {}}, replicas=[{}, {}])
    async with LocalTestbed(tmp_path) as testbed, testbed.cluster(spec) as cluster:
        await cluster.ready(READY_WITHIN_S)
        status = await cluster.status("front", within_s=5)
        assert status
        assert all(each["available"] for each in status["backends"].values())

        url = f"http://{cluster.direct_address('front')}/admin/backends/web-2"
        async with cluster.session.patch(url, json={"weight": 0}, headers=AS_OPERATOR) as answer:
            assert answer.status == 200, await answer.text()
        await cluster.ready(READY_WITHIN_S, ["front", "web-1", "web-2"])  # each of them by itself
        with pytest.raises(TimedOut, match="may not ask web-2 yet"):
            await cluster.ready(0.2)


async def test_members_are_asked_in_their_own_protocol_alone(tmp_path: Path) -> None:
    """Redis takes a request of HTTP for an attack, and Kafka and RabbitMQ log an error of each."""
    members = (MemberSpec("redis", "redis"),)
    spec = ClusterSpec("members", (NodeSpec("n1", ECHO),), ("c1",), members=members)
    async with LocalTestbed(tmp_path) as testbed, testbed.cluster(spec) as cluster:
        await cluster.ready(READY_WITHIN_S)
        await cluster.stop()  # what it was asked last is logged by then
        log = cluster.logs("redis").read_text()
    assert "eady to accept connections" in log
    assert "SECURITY" not in log


async def test_while_one_is_not_ready_the_others_are_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside servers that take seconds to start nodes are not asked over and over; but who is not
    ready in the end is told, and all are asked before it is said that they are."""
    members = (MemberSpec("redis", "redis"),)
    nodes = (NodeSpec("n1", ECHO), NodeSpec("n2", ECHO))
    spec = ClusterSpec("x", nodes, ("c1",), members=members)
    async with LocalTestbed(tmp_path) as testbed, testbed.cluster(spec) as cluster:
        await cluster.ready(READY_WITHIN_S)
        asked: list[str] = []
        why = {"n1": "", "n2": "", "redis": "loading"}

        async def unready(node: str) -> str:
            asked.append(node)
            return why[node]

        monkeypatch.setattr(cluster, "_unready", unready)
        with pytest.raises(TimedOut, match=r"redis.*loading"):
            await cluster.ready(0.5)
        assert asked.count("redis") > 4
        assert asked.count("n1") == asked.count("n2") == 1, "to tell in the end"

        why["redis"] = ""
        asked.clear()
        await cluster.ready(READY_WITHIN_S)
        assert set(asked) == set(why)


async def test_who_does_not_tell_its_status_may_not_have_found_its_backends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ClusterSpec("x", (NodeSpec("n1", ECHO),), ("c1",))
    async with LocalTestbed(tmp_path) as testbed, testbed.cluster(spec) as cluster:
        await cluster.ready(READY_WITHIN_S)

        async def silent(*_: object) -> None: ...

        monkeypatch.setattr(cluster, "status", silent)
        with pytest.raises(TimedOut, match="has not told its status"):
            await cluster.ready(0.5)
