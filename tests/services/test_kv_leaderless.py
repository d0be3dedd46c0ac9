"""The store without a leader over real HTTP: siblings, contexts, quorums, hints, restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.protocols.quorum import Quorum
from tests.services.cluster import Cluster, leaderless, until


def core(cluster: Cluster, node: str) -> Quorum:
    found: Any = cluster.nodes[node].driver.core
    assert isinstance(found, Quorum)
    return found


async def agree(cluster: Cluster) -> None:
    """Wait until all running nodes have the same, and nothing is to be handed over."""

    def alike() -> bool:
        cores = [core(cluster, node) for node in cluster.nodes]
        digests = {each.status()["digest"] for each in cores}
        return len(digests) == 1 and not any(each.hints for each in cores)

    await until(alike)


async def test_what_is_written_at_one_node_is_read_at_another(tmp_path: Path) -> None:
    """R = W = a majority: the read meets the write, whoever coordinates it."""
    async with leaderless(tmp_path, "quorum") as made:
        status, document, _ = await made.request("PUT", "/kv/a", "n1", json={"value": 1})
        assert (status, document["version"]) == (200, 1)
        assert document["context"] == {core(made, "n1").disk: 1}
        for node in made.nodes:
            status, document, _ = await made.request("GET", "/kv/a?consistency=quorum", node)
            assert (status, document["value"], document["siblings"]) == (200, 1, [1])


async def test_concurrent_writes_become_siblings_until_a_client_merges_them(
    tmp_path: Path,
) -> None:
    """Dynamo §4.4: the client that read both replaces both, by the context that it was given."""
    async with leaderless(tmp_path, "quorum") as made:
        for node, value in (("n1", "one"), ("n2", "two")):
            await made.request("PUT", "/kv/cart?consistency=all", node, json={"value": value})
        _, read, _ = await made.request("GET", "/kv/cart", "n3")
        assert sorted(read["siblings"]) == ["one", "two"]
        body = {"value": "both", "context": read["context"]}
        await made.request("PUT", "/kv/cart?consistency=all", "n3", json=body)
        _, read, _ = await made.request("GET", "/kv/cart", "n1")
        assert (read["value"], read["siblings"]) == ("both", ["both"])


async def test_who_never_reads_adds_no_siblings_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """413, definite; who has read may write, and then there is room again."""
    monkeypatch.setattr("services.kv.leaderless.SIBLINGS_MAX", 3)
    async with leaderless(tmp_path, "quorum", 1) as made:
        told = [await made.request("PUT", "/kv/a", json={"value": n}) for n in range(4)]
        assert [status for status, _, _ in told] == [200, 200, 200, 413]
        assert told[-1][1]["definite"] is True
        body = {"value": 4, "context": told[2][1]["context"]}
        assert (await made.request("PUT", "/kv/a", json=body))[0] == 200
        assert (await made.request("GET", "/kv/a"))[1]["siblings"] == [4]


async def test_the_last_write_wins_and_the_other_is_gone(tmp_path: Path) -> None:
    """KV_CONFLICTS=last-write-wins: one value, though both writers were told "ok"."""
    async with leaderless(tmp_path, "quorum", conflicts="last-write-wins") as made:
        for node, value in (("n1", "one"), ("n2", "two")):
            await made.request("PUT", "/kv/a?consistency=all", node, json={"value": value})
        _, read, _ = await made.request("GET", "/kv/a", "n3")
        assert read["siblings"] == ["two"]


async def test_without_a_quorum_a_read_is_refused_and_a_write_is_unknown(tmp_path: Path) -> None:
    """Definite for the read, which changes nothing; one disk has the write, and may spread it."""
    async with leaderless(tmp_path, "quorum") as made:
        await made.stop("n2", "n3")
        deadline = {"X-Deadline-Ms": "300"}
        status, problem, _ = await made.request("GET", "/kv/a", headers=deadline)
        assert (status, problem["definite"]) == (503, True)
        body = {"value": 1}
        status, problem, _ = await made.request("PUT", "/kv/a", json=body, headers=deadline)
        assert (status, problem["definite"]) == (504, False)
        path = "/kv/a?consistency=eventual"
        status, document, _ = await made.request("GET", path, headers=deadline)
        assert (status, document["value"]) == (200, 1), "it had happened"
        await made.start("n2", "n3")
        await agree(made)
        _, document, _ = await made.request("GET", "/kv/a", "n3")
        assert document["value"] == 1


async def test_a_stand_in_keeps_a_write_and_hands_it_over(tmp_path: Path) -> None:
    """Dynamo §4.6: with a sloppy quorum two of three homes are down, and W = 2 is met all the same;
    nobody reads the key, no hash trees are compared, and the homes get it."""
    settings = {"replicas": "3", "sloppy": "on", "anti_entropy_ticks": "0", "read_repair": "off"}
    async with leaderless(tmp_path, "quorum", 5, **settings) as made:
        homes = core(made, "n1").homes("a")
        await made.stop(homes[1], homes[2])
        status, _, _ = await made.request("PUT", "/kv/a", homes[0], json={"value": 1})
        assert status == 200
        assert any(core(made, node).hints for node in made.nodes)
        await made.start(homes[1], homes[2])
        await until(lambda: not any(core(made, node).hints for node in made.nodes))
        owners = [home for home in homes[1:] if core(made, home).state("a").versions]
        assert owners, "a home was handed its copy"


async def test_who_keeps_no_copy_points_to_one_who_does(tmp_path: Path) -> None:
    """421 with a home as the hint, which KvClient follows."""
    async with leaderless(tmp_path, "quorum", 3, replicas="1") as made:
        (home,) = core(made, "n1").homes("a")
        other = next(node for node in made.nodes if node != home)
        status, problem, _ = await made.request("PUT", "/kv/a", other, json={"value": 1})
        assert (status, problem["leader"], problem["definite"]) == (421, home, True)


async def test_all_is_there_after_a_restart(tmp_path: Path) -> None:
    """The siblings and the counter: the next write gets a dot of its own."""
    async with leaderless(tmp_path, "quorum") as made:
        for value in ("one", "two"):
            await made.request("PUT", "/kv/a", "n1", json={"value": value})
        await made.stop("n1", "n2", "n3")
        await made.start("n1", "n2", "n3")
        await made.request("PUT", "/kv/a", "n1", json={"value": "three"})
        _, read, _ = await made.request("GET", "/kv/a", "n1")
        assert sorted(read["siblings"]) == ["one", "three", "two"]
        assert read["context"] == {core(made, "n1").disk: 3}


async def test_a_deleted_key_is_gone_everywhere(tmp_path: Path) -> None:
    """A tombstone replaces what it has seen; who missed it is told and brings nothing back."""
    async with leaderless(tmp_path, "quorum") as made:
        await made.request("PUT", "/kv/a?consistency=all", json={"value": 1})
        await made.stop("n3")
        assert (await made.request("DELETE", "/kv/a"))[0] == 200
        await made.start("n3")
        await agree(made)
        assert (await made.request("GET", "/kv/a?consistency=eventual", "n3"))[0] == 404


async def test_a_delete_takes_away_what_its_node_has_missed(tmp_path: Path) -> None:
    """n2 and n3 have acknowledged a value (W = 2) that n1 has not got: who deletes it at n1 is told
    that it is gone, and it is. A tombstone that had not seen it would stand beside it."""
    settings = {"anti_entropy_ticks": "0", "read_repair": "off"}
    async with leaderless(tmp_path, "quorum", **settings) as made:
        missing = core(made, "n1")
        step = missing.step
        missing.step = lambda message: None  # type: ignore[method-assign]
        assert (await made.request("PUT", "/kv/a", "n2", json={"value": 1}))[0] == 200
        missing.step = step  # type: ignore[method-assign]
        assert not missing.states
        assert (await made.request("DELETE", "/kv/a", "n1"))[0] == 200
        for node in made.nodes:
            assert (await made.request("GET", "/kv/a?consistency=quorum", node))[0] == 404


async def test_a_context_that_cannot_have_been_given_is_refused(tmp_path: Path) -> None:
    """Counters that no write had hide what is written later, or leave no number for it; names of
    disks that there never were stay for ever. 400, definite, and the key is as it was."""
    async with leaderless(tmp_path, "quorum") as made:
        _, first, _ = await made.request("PUT", "/kv/a?consistency=all", json={"value": 1})
        disk, other = core(made, "n1").disk, core(made, "n2").disk
        for forged in (
            {disk: 2},  # its own counter, which it knows exactly
            {other: 2**40},
            {f"n9-{1:013x}": 1},
            {f"n2-{number:013x}": 1 for number in range(300)},
        ):
            body = {"value": 2, "context": {**first["context"], **forged}}
            status, problem, _ = await made.request("PUT", "/kv/a", json=body)
            assert (status, problem["definite"]) == (400, True), forged
        # What n2 has written and n1 not heard of yet is no forgery.
        body = {"value": 2, "context": {**first["context"], other: 1}}
        assert (await made.request("PUT", "/kv/a", json=body))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "how"),
    [
        ("GET", "/kv/a?consistency=linearizable", {}),
        ("GET", "/kv/a?quorum=1", {}),
        ("PUT", "/kv/a", {"json": {"value": 1}, "headers": {"If-Match": '"1"'}}),
        ("PUT", "/kv/a", {"json": {"value": 1}, "headers": {"Idempotency-Key": "k"}}),
        ("PUT", "/kv/a", {"json": {"value": 1, "context": {"nobody": 1}}}),
        ("PUT", "/kv/a", {"json": {"value": 1, "context": {"n1": -1}}}),
        ("PUT", "/kv/a", {"json": {"value": 1, "context": {"n1": 2**60}}}),
        ("PUT", "/kv/a", {"json": {"valu": 1}}),
        ("DELETE", "/kv/a", {"json": 1}),
    ],
)
async def test_what_it_cannot_do_it_refuses(
    tmp_path: Path, method: str, path: str, how: dict[str, Any]
) -> None:
    """400, and nothing was changed: to promise what only a leader can is worse than to refuse."""
    async with leaderless(tmp_path, "quorum", 1) as made:
        status, problem, _ = await made.request(method, path, **how)
        assert (status, problem["definite"]) == (400, True)
        assert not core(made, "n1").states
