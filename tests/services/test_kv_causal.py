"""The causally consistent store over real HTTP: sessions that move, levels, restarts, refusals."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.chassis.errors import NotFound, Unavailable
from services.kv.client import SESSION_TOKEN, KvClient
from services.kv.client.session import KvSession
from services.protocols.causal import Causal
from tests.services.cluster import CONSENSUS, Cluster, cluster, leaderless, until


def core(made: Cluster, node: str) -> Causal:
    found: Any = made.nodes[node].driver.core
    assert isinstance(found, Causal)
    return found


async def agree(made: Cluster) -> None:
    """Wait until all running nodes hold the same."""
    await until(lambda: len({core(made, node).digest() for node in made.nodes}) == 1)


def hold_back(made: Cluster, node: str, origin: str) -> Any:
    """`node` gets nothing from `origin` any more; returns what lets it through again."""
    found = core(made, node)
    step = found.step
    found.step = lambda message: None if message.src == origin else step(message)  # type: ignore[method-assign]
    return lambda: setattr(found, "step", step)


async def test_a_session_that_moves_waits_until_the_node_has_what_it_has_seen(
    tmp_path: Path,
) -> None:
    """Read your writes: n2 keeps the read waiting, or refuses it at the deadline, and says so."""
    async with (
        leaderless(tmp_path, "causal", anti_entropy_ticks="0") as made,
        KvClient(made.addresses) as client,
    ):
        session = KvSession(client, read="causal")
        let_through = hold_back(made, "n2", "n1")
        await session.put("a", 1, node="n1")
        with pytest.raises(Unavailable, match="seen"):
            await session.get("a", node="n2", deadline_ms=1_000)
        with pytest.raises(Unavailable, match="nothing happened"):
            await session.put("a", 2, node="n2", deadline_ms=1_000)
        with pytest.raises(NotFound):
            await KvSession(client, read="eventual").get("a", node="n2")
        let_through()
        assert (await session.get("a", node="n2", deadline_ms=5_000)).value == 1
        assert not core(made, "n2").waiting, "who gave up is forgotten"


async def test_nobody_sees_the_answer_before_the_question(tmp_path: Path) -> None:
    """COPS §2: "if a user sees the reply, she sees the message": n3 hears n2 and not n1."""
    async with (
        leaderless(tmp_path, "causal", anti_entropy_ticks="0") as made,
        KvClient(made.addresses) as client,
    ):
        let_through = hold_back(made, "n3", "n1")
        await KvSession(client, read="causal").put("question", "?", node="n1")
        answerer = KvSession(client, read="causal")
        await until(lambda: "question" in core(made, "n2").states)
        await answerer.get("question", node="n2")
        await answerer.put("answer", "!", node="n2")
        await until(lambda: core(made, "n3").status()["pending"])
        with pytest.raises(NotFound):
            await KvSession(client, read="causal").get("answer", node="n3")
        let_through()
        await until(lambda: "answer" in core(made, "n3").states)
        assert "question" in core(made, "n3").states


async def test_the_last_write_wins_everywhere(tmp_path: Path) -> None:
    """Concurrent writes of one key: all nodes keep the same one of them."""
    async with leaderless(tmp_path, "causal") as made, KvClient(made.addresses) as client:
        for node in made.nodes:
            await KvSession(client, read="eventual", write="eventual").put("a", node, node=node)
        await agree(made)
        replies = [await client.get("a", consistency="eventual", node=node) for node in made.nodes]
        assert len({(reply.value, reply.version) for reply in replies}) == 1


async def test_what_was_acknowledged_survives_a_restart_and_is_sent_again(tmp_path: Path) -> None:
    """n1 alone has it, stops, and comes back: its peers get it; and dots go on where they were."""
    async with leaderless(tmp_path, "causal") as made:
        await made.stop("n2", "n3")
        for value in (1, 2):
            status, _, headers = await made.request("PUT", "/kv/a", json={"value": value})
            assert status == 200
        assert headers[SESSION_TOKEN] == f"/{core(made, 'n1').disk}:2"
        await made.stop("n1")
        await made.start("n1", "n2", "n3")
        await made.request("PUT", "/kv/a", json={"value": 3})
        await agree(made)
        _, document, _ = await made.request("GET", "/kv/a", "n3")
        assert document["value"] == 3
        assert core(made, "n3").applied == {core(made, "n1").disk: 3}


async def test_a_deleted_key_is_gone_everywhere(tmp_path: Path) -> None:
    """The tombstone is a write like others: its session token leads to it."""
    async with leaderless(tmp_path, "causal") as made, KvClient(made.addresses) as client:
        session = KvSession(client, read="causal")
        await session.put("a", 1, node="n1")
        _, _, headers = await made.request(
            "DELETE", "/kv/a", "n2", headers={SESSION_TOKEN: session.token}
        )
        session.token = headers[SESSION_TOKEN]
        with pytest.raises(NotFound):
            await session.get("a", node="n3")


@pytest.mark.parametrize(
    ("method", "path", "how"),
    [
        ("GET", "/kv/a?quorum=1", {}),
        ("GET", "/kv/a?consistency=", {}),
        ("GET", "/kv/a", {"headers": {SESSION_TOKEN: "n1"}}),
        ("GET", "/kv/a", {"headers": {SESSION_TOKEN: "stranger-1:1/"}}),
        ("PUT", "/kv/a?consistency=sequential", {"json": {"value": 1}}),
        ("PUT", "/kv/a", {"json": {"value": 1}, "headers": {"If-Match": '"1"'}}),
        ("PUT", "/kv/a", {"json": {"value": 1}, "headers": {"Idempotency-Key": "k"}}),
        ("PUT", "/kv/a", {"json": {"valu": 1}}),
        ("DELETE", "/kv/a", {"json": 1}),
    ],
)
async def test_what_it_cannot_do_it_refuses(
    tmp_path: Path, method: str, path: str, how: dict[str, Any]
) -> None:
    """400, and nothing was changed."""
    async with leaderless(tmp_path, "causal", 1) as made:
        status, problem, _ = await made.request(method, path, **how)
        assert (status, problem["definite"]) == (400, True)
        assert not core(made, "n1").states


async def test_a_token_of_what_was_never_written_is_refused(tmp_path: Path) -> None:
    """A node knows how many writes it has accepted itself: a session that has seen more of them is
    refused at once, and waits for nobody. 400, definite, of whatever level."""
    async with leaderless(tmp_path, "causal", 1) as made:
        _, _, headers = await made.request("PUT", "/kv/a", json={"value": 1})
        token = headers[SESSION_TOKEN].replace(":1", ":2")
        for method, how in (("GET", {}), ("PUT", {"json": {"value": 2}}), ("DELETE", {})):
            status, problem, _ = await made.request(
                method, "/kv/a", headers={SESSION_TOKEN: token}, **how
            )
            assert (status, problem["definite"]) == (400, True)
        assert not core(made, "n1").waiting
        assert (await made.request("GET", "/kv/a"))[1]["value"] == 1


async def test_an_unknown_level_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    """Of this store, and of one with a log."""
    async with leaderless(tmp_path, "causal", 1) as made:
        _, problem, headers = await made.request("GET", "/kv/a?consistency=linearizable")
        assert headers["Content-Type"] == "application/problem+json"
        assert problem["allowed"] == ["causal", "session", "eventual"]
    async with cluster(tmp_path / "raft", 1, protocol="raft") as made:
        _, problem, _ = await made.request("GET", "/kv/a?consistency=causal")
        assert problem["allowed"] == ["linearizable", "lease", "sequential", "local", "eventual"]


async def test_a_session_knows_of_a_write_that_it_began_with(tmp_path: Path) -> None:
    """At the store's own level, which asks for no token: the session gets one all the same."""
    async with cluster(tmp_path, 1) as made, KvClient(made.addresses) as client:
        session = KvSession(client, read="sequential")
        reply = await session.put("a", 1)
        assert session.token == str(reply.version)


@pytest.mark.parametrize("protocol", CONSENSUS)
async def test_a_sequential_session_never_goes_back_in_the_log(
    tmp_path: Path, protocol: str
) -> None:
    """A follower that has not applied what the session has seen keeps the read waiting; it
    answers one without that past with the past."""
    async with cluster(tmp_path, 3, protocol=protocol) as made, KvClient(made.addresses) as client:
        leader = await made.leader()
        behind = next(node for node in made.nodes if node != leader)
        session = KvSession(client, read="sequential", write="sequential")
        await session.put("a", 1, node=leader)
        assert (await session.get("a", node=behind)).value == 1
        let_through = cut_off(made, behind)
        await session.put("a", 2, node=leader)
        with pytest.raises(Unavailable, match="behind"):
            await session.get("a", node=behind, deadline_ms=1_000)
        new = KvSession(client, read="sequential")
        assert (await new.get("a", node=behind)).value == 1
        assert (await new.get("a", node=leader)).value == 2
        let_through()
        assert (await session.get("a", node=behind, deadline_ms=5_000)).value == 2


async def test_who_waits_for_the_log_keeps_nobody_from_reading(tmp_path: Path) -> None:
    """A token of an index that the log may never reach, at a node that reads one at a time: it is
    refused at its deadline, definite, and others are served meanwhile."""
    async with cluster(tmp_path, 1, protocol="raft", read_slots="1", read_ms="1") as made:
        await made.request("PUT", "/kv/a", json={"value": 1})
        driver: Any = made.nodes["n1"].driver
        headers = {SESSION_TOKEN: "9" * 18, "X-Deadline-Ms": "10000"}
        path = "/kv/a?consistency=sequential"
        ahead = asyncio.create_task(made.request("GET", path, headers=headers))
        await until(lambda: driver._behind)
        status, document, _ = await made.request("GET", "/kv/a?consistency=local")
        assert not ahead.done(), "it waits still"
        assert (status, document["value"]) == (200, 1)
        ahead.cancel()
        headers["X-Deadline-Ms"] = "200"
        status, problem, _ = await made.request("GET", path, headers=headers)
        assert (status, problem["definite"]) == (503, True)


def cut_off(made: Cluster, node: str) -> Any:
    """`node` receives nothing, and does nothing by itself."""
    driver: Any = made.nodes[node].driver
    step, tick = driver.core.step, driver.core.tick
    driver.core.step = driver.core.tick = lambda *_: None

    def let_through() -> None:
        driver.core.step, driver.core.tick = step, tick

    return let_through


async def test_to_find_nothing_is_to_have_seen_something(tmp_path: Path) -> None:
    """A sequential read of a key that is not there moves its session on, too."""
    async with cluster(tmp_path, 1, protocol="raft") as made, KvClient(made.addresses) as client:
        await client.put("a", 1)
        session = KvSession(client, read="sequential")
        with pytest.raises(NotFound):
            await session.get("b")
        assert int(session.token) >= 2
