"""The whole service under random fault schedules: a few seeds, the planted bugs, the shrinking.

Many seeds: `make sim SERVICE=kv RUNS=1000`.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from labs.harness.swarm.bug import SHIPPED, Bug
from labs.harness.swarm.plan import Plan, draw
from labs.harness.swarm.run import ALOUD, HISTORY, SILENT, Failure, carry_out, simulate
from labs.harness.swarm.search import Swarm
from labs.harness.swarm.shrink import minimize, shrink, transcript
from services.kv.cores import PROTOCOLS
from tests.simulation.service.__main__ import describe
from tests.simulation.service.bugs import BUGS

# A killed node closes nothing, its HTTP sessions least of all.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")

SHORT_S = 1.5  # of load and faults: enough for what is planted here
UNSYNCED = BUGS["unsynced_storage"]
# What is wrong, the protocol that it is wrong with, and the seeds to look at.
PLANTED = {
    "unsynced storage": (UNSYNCED, "raft", range(20)),
    "sent before persisted": (BUGS["send_before_persist"], "raft", (46,)),
    "no log check": (SHIPPED, "labs.broken:NoLogCheck", (14,)),
}


@pytest.fixture(autouse=True)
def remains() -> Iterator[None]:
    """What the dead have left is collected within the test, under its filter of warnings."""
    yield
    gc.collect()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_service_keeps_its_promises(protocol: str, seed: int) -> None:
    """No acknowledged write is lost, the history is linearizable, healed it converges; under power
    failures, disks that are full or fail, partitions, pauses, clocks that step and drift."""
    failure = simulate(draw(seed, protocol))

    assert failure is None, describe(failure, seed, SHIPPED.name, protocol)


def first_failure(bug: Bug, protocol: str, seeds: Iterable[int]) -> int:
    for seed in seeds:
        if simulate(draw(seed, protocol, active_s=SHORT_S), bug) is not None:
            return seed
    raise AssertionError(f"{bug.name} of {protocol} was not found in {seeds}")


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found_and_replays(name: str) -> None:
    """A simulation that finds nothing proves nothing; so does one that cannot replay."""
    bug, protocol, seeds = PLANTED[name]
    seed = first_failure(bug, protocol, seeds)
    plan = draw(seed, protocol, active_s=SHORT_S)
    first, again = (simulate(plan, bug, tell=True) for _ in range(2))

    assert first == again
    assert first is not None
    assert len(first.story) > 10
    assert simulate(replace(plan, protocol="raft")) is None, (
        "the shipped service passes the same schedule"
    )


def test_replicas_that_differ_are_found_though_no_client_has_seen_it() -> None:
    """The nodes that miss a key do not lead, and only who leads is asked."""
    failure = simulate(draw(5, "raft"), BUGS["restore_forgets"])

    assert failure is not None
    assert failure.promise == "nodes that applied the same log hold the same state"
    assert len(set(re.findall("[0-9a-f]{16}", failure.detail))) > 1


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("protocol", ["raft", "viewstamped"])
def test_to_tell_about_a_run_does_not_change_it(protocol: str, seed: int, tmp_path: Path) -> None:
    """Runs are silent until one fails: with telemetry it must be the same run, to the byte."""
    for name, telemetry in (("silent", SILENT), ("aloud", ALOUD)):
        (tmp_path / name).mkdir()
        carry_out(draw(seed, protocol, active_s=SHORT_S), tmp_path / name, telemetry=telemetry)
    silent, aloud = ((tmp_path / name / HISTORY).read_bytes() for name in ("silent", "aloud"))

    assert len(silent) > 1_000
    assert silent == aloud
    assert not list((tmp_path / "silent").glob("*.events.jsonl"))
    assert list((tmp_path / "aloud").glob("*.events.jsonl"))


def _run_unsynced(swarm: Swarm, plans: Iterable[Plan]) -> Iterator[Failure | None]:
    return swarm.run(plans, UNSYNCED, tell=True)


def test_a_failing_schedule_shrinks_to_what_matters() -> None:
    """Unsynchronized storage needs one power failure and hardly a request to be caught."""
    seed = first_failure(*PLANTED["unsynced storage"])
    with Swarm(2) as swarm:
        plan = draw(seed, active_s=SHORT_S)
        found = shrink(plan, run=partial(_run_unsynced, swarm), runs_max=150)

    assert len(found.plan.faults) == 1
    assert found.plan.faults[0].kind == "power"
    assert len(found.plan.operations) <= 5
    text = transcript(found.plan, found.failure)
    assert "power fails at" in text
    assert f"broken: {found.failure.promise}" in text


def test_what_does_not_fail_is_not_shrunk() -> None:
    """Rather than to reduce a plan to nothing."""
    with pytest.raises(ValueError, match="does not fail"):
        shrink(draw(0))


@pytest.mark.parametrize("needed", [set(), {3}, {0, 9}, {2, 3, 7}, set(range(10))])
def test_minimize_keeps_what_is_needed_in_order(needed: set[int]) -> None:
    """ddmin on a failure that needs exactly these items."""

    def fails(candidates: Iterable[Sequence[int]]) -> Iterator[bool]:
        return (needed <= set(kept) for kept in candidates)

    assert minimize(range(10), fails) == sorted(needed)
