"""Variants that share a cluster: one load and one fault, results and evidence of each one's own."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from labs.harness.history import load
from labs.harness.lab import options, runner
from labs.harness.lab.definition import Lab, Variant
from labs.harness.lab.directory import read_lines
from labs.harness.lab.stage import InvalidRun, Stage
from labs.harness.lab.story import Story
from labs.harness.lab.verdict import Verdict
from labs.harness.testbed.cluster import NodeExited, TestbedError
from labs.harness.testbed.description import ClusterSpec, MemberSpec, NodeSpec, joined
from labs.harness.testbed.errors import EXIT_SOFTWARE
from tests.harness.testbed.contract import ECHO

SHARED = NodeSpec("both", ECHO)


def spec(*names: str, members: tuple[MemberSpec, ...] = ()) -> ClusterSpec:
    nodes = (SHARED, *(NodeSpec(name, ECHO) for name in names))
    return ClusterSpec("x", nodes, ("c1",), False, members)


def run(lab: Lab, directory: Path) -> Verdict:
    chosen = options.check(on="local", seed="3")
    return runner.run(lab, chosen, Story(Console(file=io.StringIO())), directory)[0]


def lab_of(scenario: object) -> Lab:
    return Lab(
        name="x", questions=(1,), question="?", answer=lambda _: "", together=True,
        scenario=scenario,  # type: ignore[arg-type]
        variants=(
            Variant("good one", "holds", "", lambda _: spec("g1")),
            Variant("bad one", "breaks", "", lambda _: spec("b1")),
        ),
    )  # fmt: skip


def test_one_cluster_for_all_variants() -> None:
    """Each node once, also one that several variants describe; of other members there is none."""
    assert joined([spec("g1"), spec("b1", "b2")]).node_names == ("both", "g1", "b1", "b2")
    with pytest.raises(AssertionError):
        joined([spec("g1"), spec("b1", members=(MemberSpec("redis", "redis"),))])
    with pytest.raises(AssertionError):
        joined([ClusterSpec("x", (NodeSpec(name, ECHO),), ("c1",)) for name in ("a", "b")])
    with pytest.raises(ValueError, match="names something twice"):
        joined([spec("g1"), ClusterSpec("x", (NodeSpec("both", "kv"),), ("c1",), False)])


@pytest.mark.slow
def test_variants_share_the_fault_and_keep_their_results(tmp_path: Path) -> None:
    """The scenario runs once. Claims decide the variant that they are made of; the fault is in the
    history of each, and so are its own nodes' logs, without those of the other's alone."""
    runs = []

    async def scenario(stage: Stage) -> None:
        runs.append([each.result.name for each in stage.together])
        await stage.cluster.ready()
        async with stage.fault(stage.nemesis.pause(["g1", "b1"]), "paused"):
            pass
        for each in stage.together:
            each.claim("it holds", each.result.expected == "holds", "", control_breaks=True)

    verdict = run(lab_of(scenario), tmp_path)

    assert runs == [["good one", "bad one"]]
    assert (verdict.verdict, verdict.reason) == ("pass", "each variant did what it must")
    assert [each["outcome"] for each in verdict.variants] == ["holds", "breaks"]
    assert [each["nodes"] for each in verdict.variants] == [["both", "g1"], ["both", "b1"]]
    assert [(each.variant, each.target) for each in verdict.faults] == [
        ("good one", "g1 b1"),
        ("bad one", "g1 b1"),
    ]
    for own, its, others in (("good-one", "g1", "b1"), ("bad-one", "b1", "g1")):
        logs = {path.stem for path in (tmp_path / own).glob("*.log")}
        assert {"both", its, "links"} <= logs
        assert others not in logs
        assert load(tmp_path / own / "history.jsonl").nemesis
        assert read_lines(tmp_path / own / "faults.jsonl")


@pytest.mark.slow
def test_what_spoils_the_experiment_spoils_every_variant(tmp_path: Path) -> None:
    """Neither may pass on claims that were made before."""

    async def scenario(stage: Stage) -> None:
        for each in stage.together:
            each.claim("it holds", each.result.expected == "holds", "", control_breaks=True)
        raise InvalidRun("nothing came about")

    verdict = run(lab_of(scenario), tmp_path)

    assert verdict.verdict == "invalid"
    assert [each["trouble"] for each in verdict.variants] == ["nothing came about"] * 2
    assert [each["outcome"] for each in verdict.variants] == ["unknown"] * 2


def test_the_times_of_a_cluster_that_does_not_start_have_their_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its nodes may have told something; the report puts that on the time axis of the history."""

    def fails(_: object) -> ClusterSpec:
        raise TestbedError("no room")

    async def scenario(_: Stage) -> None:
        raise AssertionError("there is no stage")

    monkeypatch.setattr(runner, "joined", fails)
    verdict = run(lab_of(scenario), tmp_path)

    assert [each["trouble"] for each in verdict.variants] == ["no room"] * 2
    assert all(each["start_ns"] for each in verdict.variants)


@pytest.mark.slow
def test_a_node_that_stops_itself_is_its_own_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other variant is not said to have crashed; it can't be judged any more."""

    async def scenario(stage: Stage) -> None:
        found = NodeExited("b1", EXIT_SOFTWARE, '{"exception": "AssertionError: two leaders"}')

        def check() -> None:
            raise found

        monkeypatch.setattr(stage.cluster, "check", check)
        raise found

    verdict = run(lab_of(scenario), tmp_path)

    said = "b1 found itself wrong and stopped: AssertionError: two leaders"
    assert (verdict.verdict, verdict.reason) == ("fail", f"bad one: {said}")
    assert [each["crash"] for each in verdict.variants] == [None, said]
    assert [each["trouble"] for each in verdict.variants] == [said, None]
