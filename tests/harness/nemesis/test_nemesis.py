"""Faults as scopes: planned before anything is touched, felt by probes, healed on every way out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labs.harness.links import Link, LinkFault
from labs.harness.nemesis import FaultRecord, Nemesis, NemesisError, Scope, ShapeError
from labs.harness.nemesis.nemesis import Planned
from tests.harness.links.helpers import Caller
from tests.harness.nemesis.helpers import OK, DeafLinks, Setting, setting

C1_N1 = Link("c1", "n1")

FAULTS: dict[str, Callable[[Nemesis], Planned]] = {
    "partition": lambda n: n.partition("majority", clients={"c1": "n1", "c2": "n3"}),
    "partition primaries": lambda n: n.partition("primaries", clients={"c1": "primaries"}),
    "partition bridge": lambda n: n.partition("bridge"),
    "partition ring": lambda n: n.partition("majorities_ring"),
    "partition one way": lambda n: n.partition("one", symmetry="asymmetric"),
    "partition groups": lambda n: n.partition([["n1", "n2"], ["n3", "n4", "n5"]]),
    "partition grudge": lambda n: n.partition({"n1": {"n2"}}),
    "drop": lambda n: n.drop(C1_N1),
    "drop response": lambda n: n.drop(C1_N1, stream="response"),
    "blackhole": lambda n: n.blackhole([("n1", "n2"), ("n1", "n3")], stream="request"),
    "clog": lambda n: n.clog(C1_N1),
    "delay": lambda n: n.delay(C1_N1, time_ms=20, jitter_ms=5),
    "delay response": lambda n: n.delay(C1_N1, time_ms=20, stream="response"),
    "rate": lambda n: n.rate(C1_N1, rate_kbit=1000, stream="request"),
    "refuse": lambda n: n.refuse(C1_N1),
    "reset": lambda n: n.reset(C1_N1),
    "kill": lambda n: n.kill("minority"),
    "kill all": lambda n: n.kill("all"),
    "pause": lambda n: n.pause("primaries"),
    "wipe": lambda n: n.wipe("n4"),
    "bump": lambda n: n.bump("n1", delta_ms=-750),
    "drift": lambda n: n.drift("followers", rate=1.05),
}


async def intact(test: Setting) -> None:
    """Every link answers, every node runs and has true time."""
    for link, address in test.cluster.listen.items():
        caller = await Caller.dial(address)
        caller.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(caller.reader.readexactly(len(OK)), 2) == OK, link
        caller.abort()
    for server in test.cluster.servers.values():
        assert (server.state, server.clock["rate"]) == ("running", 1.0)
        assert server.clock["offset_ms"] == 0


@pytest.mark.parametrize("name", FAULTS)
async def test_every_fault_is_felt_healed_and_recovered(name: str, tmp_path: Path) -> None:
    """Each fault: planned, injected, felt, still felt before the heal, healed, recovered."""
    async with setting(tmp_path) as test:
        async with FAULTS[name](test.nemesis) as fault:
            assert await fault.felt(within_s=3), fault.record.felt_how

        record = fault.record
        assert record.felt is True, record.felt_how
        assert record.recovered is True, record.recovered_how
        assert record.planned_at <= (record.injected_at or 0) <= (record.felt_at or 0)
        assert (record.felt_at or 0) <= (record.healed_at or 0) <= (record.recovered_at or 0)
        assert test.nemesis.unfelt == []
        assert test.phases() == [
            "planned", "injected", "felt", "felt", "healed", "recovered", "ended",
        ]  # fmt: skip
        await intact(test)


LINK_FAULTS = [name for name in FAULTS if name.split()[0] not in ("kill", "pause", "wipe")]


@pytest.mark.parametrize("name", [*LINK_FAULTS, "kill", "pause"])
async def test_a_fault_that_does_nothing_is_unfelt(name: str, tmp_path: Path) -> None:
    """Rule 1: a fault that changed nothing makes a passing run meaningless."""
    async with setting(tmp_path) as test:
        links = test.cluster.link_control
        test.cluster.link_control = DeafLinks(links)
        test.cluster.deaf = {"kill", "pause", "clock"}

        async with FAULTS[name](test.nemesis) as fault:
            assert await fault.felt(within_s=0.5) is False

        assert [record.id for record in test.nemesis.unfelt] == [1]
        assert fault.record.felt_how
        test.cluster.link_control = links


async def test_a_fault_that_hits_half_its_links_is_unfelt(tmp_path: Path) -> None:
    """A partition that forgets one link is no partition."""
    async with setting(tmp_path) as test:
        async with test.nemesis.partition([["n1"], ["n2", "n3", "n4", "n5"]]) as cut:
            await test.cluster.link_control.set({Link("n3", "n1"): None})

            assert await cut.felt() is False

        assert "n3→n1 answered" in cut.record.felt_how
        assert test.nemesis.unfelt == [cut.record]


async def test_a_fault_that_hits_more_than_its_links_is_unfelt(tmp_path: Path) -> None:
    """And elsewhere probes must still succeed."""
    async with setting(tmp_path) as test:
        other = Link("n2", "n3")
        async with test.nemesis.drop(C1_N1) as cut:
            await test.cluster.link_control.set({other: LinkFault("refuse")})

            assert await cut.felt(within_s=0.2) is False

            await test.cluster.link_control.set({other: None})
        assert "beyond its target" in cut.record.felt_how


async def test_a_fault_that_ends_early_is_unfelt(tmp_path: Path) -> None:
    """The second look, just before the heal: a cut that healed by itself proves nothing."""
    async with setting(tmp_path) as test:
        async with test.nemesis.drop(C1_N1) as cut:
            assert await cut.felt()
            await test.cluster.link_control.set({C1_N1: None})

        assert cut.record.felt is False
        assert "but before the heal: not cut" in cut.record.felt_how


async def test_a_paused_node_is_not_taken_for_a_cut(tmp_path: Path) -> None:
    """Silence of a node that is paused anyway is no proof: its link must hold the probes."""
    async with setting(tmp_path) as test:
        links = test.cluster.link_control
        async with test.nemesis.pause("n1"):
            async with test.nemesis.partition({"n1": {"n2"}}) as cut:
                assert await cut.felt(), cut.record.felt_how
            test.cluster.link_control = DeafLinks(links)
            async with test.nemesis.partition({"n1": {"n2"}}) as deaf:
                assert await deaf.felt() is False
            test.cluster.link_control = links


async def test_a_fault_nobody_looked_for_is_looked_for_at_the_end(tmp_path: Path) -> None:
    """Leaving the scope probes, so that `felt` is decided even when the lab did not ask."""
    async with setting(tmp_path) as test:
        async with test.nemesis.drop(C1_N1) as cut:
            assert cut.record.felt is None

        assert cut.record.felt is True


async def test_the_plan_is_written_before_anything_is_touched(tmp_path: Path) -> None:
    """Rule 2: history and faults.jsonl know all targets when the first one is hit."""
    async with setting(tmp_path) as test:
        seen: list[Any] = []
        links = test.cluster.link_control

        class Watching(DeafLinks):
            async def set(self, faults: Any) -> None:
                seen.append((test.path.read_text(), list(test.log.events)))
                await links.set(faults)

        test.cluster.link_control = Watching(links)
        async with test.nemesis.partition("primaries"):
            pass

        written, events = seen[0]
        line = json.loads(written)
        assert (line["phase"], line["name"], line["target"]) == (
            "planned", "partition", "n1 | n2 n3 n4 n5",
        )  # fmt: skip
        assert len(line["parameters"]["links"]) == 8
        assert line["injected_at"] is None
        [(kind, f, value)] = events
        assert (kind, f, value["target"]) == ("invoke", "partition", "n1 | n2 n3 n4 n5")


async def test_the_report_can_read_every_phase(tmp_path: Path) -> None:
    """faults.jsonl: name, target, times, felt and how, recovered; history: process nemesis."""
    phases: list[str] = []
    async with setting(tmp_path) as test:
        nemesis = Nemesis(
            test.cluster, test.log, tmp_path / "other.jsonl", random=test.nemesis._random,
            telemetry=lambda phase, _: phases.append(phase),
        )  # fmt: skip
        async with nemesis.partition("primaries") as cut:
            caller = await Caller.dial(test.cluster.address("n1", "n2"))
            caller.writer.write(b"x" * 1234)  # a service's own bytes, held by the cut
            await asyncio.sleep(0.05)
            assert await cut.felt()
            caller.abort()
        nemesis.close()

        last = json.loads((tmp_path / "other.jsonl").read_text().splitlines()[-1])
        assert last["felt"] is True
        assert "16 of 16 probes on 8 cut links unanswered from" in last["felt_how"]
        assert "1.2 kB of real traffic held" in last["felt_how"]
        assert last["recovered_how"].startswith("8 cut links answer again")
        assert phases == ["planned", "injected", "felt", "felt", "healed", "recovered", "ended"]
        assert [kind for kind, _, _ in test.log.events] == ["invoke", *["info"] * 6]


async def test_off_plans_and_injects_nothing(tmp_path: Path) -> None:
    """NEMESIS=off: planned, not injected, not felt, without waiting: the run is invalid."""
    async with setting(tmp_path, enabled=False) as test:
        began = time.monotonic()
        for make in FAULTS.values():
            async with make(test.nemesis) as fault:
                assert await fault.felt(within_s=5) is False
        async with test.nemesis.drop(C1_N1):
            pass

        assert time.monotonic() - began < 1
        assert len(test.nemesis.unfelt) == len(FAULTS) + 1
        assert test.phases() == ["planned", "unfelt", "ended"]
        assert all(server.requests == 0 for server in test.cluster.servers.values())


@pytest.mark.parametrize("name", FAULTS)
async def test_an_exception_in_the_scope_heals(name: str, tmp_path: Path) -> None:
    """Rule 4: undo always; the exception goes on as it is."""
    async with setting(tmp_path) as test:
        with pytest.raises(ZeroDivisionError):
            async with FAULTS[name](test.nemesis):
                raise ZeroDivisionError

        assert test.nemesis.active == {}
        assert test.phases() == ["planned", "injected", "healed", "ended"]
        await intact(test)


async def test_an_injection_that_fails_half_way_is_undone(tmp_path: Path) -> None:
    """Half the targets are hit when an error comes: clean-up knows all of them."""
    async with setting(tmp_path) as test:
        kill = test.cluster.kill

        async def kill_but_n2(node: str) -> None:
            if node == "n2":
                raise OSError("no")
            await kill(node)

        test.cluster.kill = kill_but_n2  # type: ignore[method-assign]
        with pytest.raises(NemesisError, match="not injected"):
            async with test.nemesis.kill(["n1", "n2", "n3"]):
                raise AssertionError("not reached")

        assert test.phases() == ["planned", "failed", "healed"]
        assert test.nemesis.unfelt == test.nemesis.records
        await intact(test)


@pytest.mark.parametrize("when", ["inject", "felt", "body", "still felt", "heal", "recover"])
async def test_cancellation_at_any_time_heals(when: str, tmp_path: Path) -> None:
    """Ctrl-C while injecting, feeling, healing or recovering: healed, then cancelled."""
    async with setting(tmp_path) as test:
        links = test.cluster.link_control
        reached = asyncio.Event()
        calls = {"set": 0}

        class Slow(DeafLinks):
            async def set(self, faults: Any) -> None:
                calls["set"] += 1
                await links.set(faults)
                if calls["set"] == {"inject": 1, "heal": 2}.get(when):
                    reached.set()
                    await asyncio.sleep(0.05)

        test.cluster.link_control = Slow(links)

        async def lab() -> None:
            async with test.nemesis.partition("majority") as cut:
                if when == "felt":
                    asyncio.get_running_loop().call_later(0.01, reached.set)
                await cut.felt()
                if when == "body":
                    reached.set()
                    await asyncio.sleep(10)
                if when == "still felt":
                    asyncio.get_running_loop().call_later(0.01, reached.set)
                if when == "recover":
                    test.cluster.ready = hang  # type: ignore[method-assign]

        async def hang(*_: Any, **__: Any) -> None:
            reached.set()
            await asyncio.sleep(10)

        task = asyncio.create_task(lab())
        await asyncio.wait_for(reached.wait(), 5)
        task.cancel()
        if when == "heal":
            await asyncio.sleep(0.01)
            task.cancel()  # impatience does not help
        with pytest.raises(asyncio.CancelledError):
            await task

        assert test.nemesis.active == {}
        assert test.nemesis.records[0].healed_at is not None
        await intact(test)


async def test_overlapping_scopes_on_one_link(tmp_path: Path) -> None:
    """The later one wins until it ends; then the earlier one is restored."""
    async with setting(tmp_path) as test:

        async def fault() -> LinkFault | None:
            found: LinkFault | None = (await test.cluster.link_control.stats())[C1_N1].fault
            return found

        async with test.nemesis.delay(C1_N1, time_ms=20) as slow:
            assert await slow.felt()
            async with test.nemesis.refuse(C1_N1) as refuse:
                assert await refuse.felt()
                assert await fault() == LinkFault("refuse")
            assert await fault() == LinkFault("delay", time_ms=20)
        assert await fault() is None
        assert test.nemesis.unfelt == []
        assert refuse.record.recovered is True
        assert "another fault is still on" in refuse.record.recovered_how


async def test_scopes_that_end_in_another_order(tmp_path: Path) -> None:
    """An earlier scope that ends first leaves the later one's fault alone."""
    async with setting(tmp_path) as test:
        first = test.nemesis.drop(C1_N1)
        second = test.nemesis.refuse([C1_N1, ("c1", "n2")])
        await first.__aenter__()
        await second.__aenter__()
        await first.__aexit__(ValueError, ValueError(), None)

        assert (await test.cluster.link_control.stats())[C1_N1].fault == LinkFault("refuse")

        await second.__aexit__(None, None, None)
        assert (await test.cluster.link_control.stats())[C1_N1].fault is None
        await intact(test)


async def test_different_faults_at_the_same_time(tmp_path: Path) -> None:
    """A partition while a node is dead and another has a wrong clock: each is felt for itself."""
    async with setting(tmp_path) as test:
        nemesis = test.nemesis
        async with (
            nemesis.kill("n5") as dead,
            nemesis.drift("n4", rate=0.9) as drift,
            nemesis.partition([["n1", "n2"], ["n3", "n4", "n5"]]) as cut,
        ):
            assert await dead.felt()
            assert await drift.felt()
            assert await cut.felt(), cut.record.felt_how

        assert nemesis.unfelt == []
        assert nemesis.unrecovered == []
        await intact(test)


async def test_heal_all_undoes_everything_and_is_idempotent(tmp_path: Path) -> None:
    """Used by clean-up: whatever is still on goes, the latest first; twice is harmless."""
    async with setting(tmp_path) as test:
        names = ("partition", "delay", "kill", "bump")
        scopes: list[Scope] = [await FAULTS[name](test.nemesis).__aenter__() for name in names]
        assert len(test.nemesis.active) == 4

        await test.nemesis.heal_all()
        await test.nemesis.heal_all()

        assert test.nemesis.active == {}
        healed = [scope.record.healed_at or 0 for scope in scopes]
        assert healed == sorted(healed, reverse=True)
        await intact(test)


async def test_a_heal_that_fails_is_an_error_and_can_be_repeated(tmp_path: Path) -> None:
    """A fault that stays on is told, stays on the books, and goes with the next clean-up."""
    async with setting(tmp_path) as test:
        links = test.cluster.link_control

        class Broken(DeafLinks):
            async def set(self, faults: Any) -> None:
                raise OSError("gone")

        with pytest.raises(NemesisError, match="gone"):
            async with test.nemesis.drop(C1_N1) as cut:
                test.cluster.link_control = Broken(links)
        assert "not healed" in (cut.record.error or "")
        assert list(test.nemesis.active) == [1]
        with pytest.raises(NemesisError):
            await test.nemesis.heal_all()

        test.cluster.link_control = links
        await test.nemesis.heal_all()
        assert test.nemesis.active == {}
        await intact(test)


async def test_a_cluster_that_does_not_recover_is_told(tmp_path: Path) -> None:
    """Rule 5: healed is not recovered."""
    async with setting(tmp_path) as test:

        async def not_ready(*_: Any, **__: Any) -> None:
            raise TimeoutError("n2 is not ready: no leader")

        test.cluster.ready = not_ready  # type: ignore[method-assign]
        async with test.nemesis.drop(C1_N1) as cut:
            pass

        assert cut.record.recovered is False
        assert "no leader" in cut.record.recovered_how
        assert test.nemesis.unrecovered == [cut.record]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda n: n.partition("diagonal"), "unknown shape 'diagonal'; one of one, halves"),
        (lambda n: n.partition("majorities_ring"), "needs 4 nodes"),
        (lambda n: n.partition([["n1"], ["n9"]]), "no such node: n9"),
        (lambda n: n.partition("one", clients={"c9": "n1"}), "no such client group: c9"),
        (lambda n: n.partition("one", clients={"c1": "n8"}), "no node 'n8'"),
        (lambda n: n.drop(("c1", "n9")), "no such link: c1→n9"),
        (lambda n: n.drop([]), "no link"),
        (lambda n: n.kill("leader"), "no node 'leader'"),
    ],
)
async def test_nonsense_is_refused_before_anything_is_planned(
    make: Callable[[Nemesis], Planned], says: str, tmp_path: Path
) -> None:
    """A shape, target or link that is not there: a clear error, no plan, nothing touched."""
    async with setting(tmp_path, 3) as test:
        with pytest.raises(ShapeError, match=says):
            async with make(test.nemesis):
                raise AssertionError("not reached")

        assert test.nemesis.records == []
        assert test.path.read_text() == ""


async def test_a_telemetry_that_fails_leaves_no_fault_on(tmp_path: Path) -> None:
    """Whatever goes wrong once something was touched: it is undone."""
    async with setting(tmp_path) as test:

        def fails(phase: str, _: FaultRecord) -> None:
            if phase == "injected":
                raise ValueError("console gone")

        test.nemesis._telemetry = fails
        with pytest.raises(NemesisError, match="console gone"):
            async with test.nemesis.partition("one"):
                raise AssertionError("not reached")

        assert test.nemesis.active == {}
        await intact(test)


async def test_feeling_a_partition_of_five_is_quick(tmp_path: Path) -> None:
    """A felt round is a fraction of a second, proxies and nodes and probes in this one process."""
    async with setting(tmp_path) as test:
        async with test.nemesis.partition("majority", clients={"c1": "n1", "c2": "n2"}) as cut:
            best = 10.0
            for _ in range(3):
                began = time.monotonic()
                assert await cut.felt()
                best = min(best, time.monotonic() - began)

        assert best < 0.5


async def test_an_intact_link_may_be_slow(tmp_path: Path) -> None:
    """On a busy machine an intact link needs a second: patience there, no false 'felt' here."""
    async with setting(tmp_path) as test:
        links = test.cluster.link_control
        async with test.nemesis.drop(C1_N1) as cut:
            # All others answer late, and so does the cut one once it is (secretly) only slow.
            slow = LinkFault("delay", time_ms=150)
            await links.set(dict.fromkeys(test.cluster.links, slow))

            assert await cut.felt() is False

            await links.set(dict.fromkeys(test.cluster.links, slow) | {C1_N1: LinkFault("drop")})
            cut.record.felt = None
            assert await cut.felt() is True
            await links.set(dict.fromkeys(test.cluster.links) | {C1_N1: LinkFault("drop")})
