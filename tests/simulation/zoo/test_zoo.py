"""The simulation must find what is planted, or its silence about the cores means nothing.

Goal: every bug of the zoo is found soon, named, and found again from its seed; `make zoo` says so.
Method: seeds from `Bug.first` on, at most `Bug.seeds` of them; the failure's own words, twice the
same.
"""

from __future__ import annotations

import pytest

from tests.simulation.runner import INVARIANTS, WITHIN_A_NODE, ZOO, first_failure, simulate
from tests.simulation.zoo.__main__ import main
from tests.simulation.zoo.bug import CORRECT, Bug

PLANTED = [
    pytest.param(protocol, bug, id=f"{protocol}-{name}")
    for protocol, bugs in ZOO.items()
    for name, bug in bugs.items()
    if bug is not CORRECT
]


def test_the_zoo_is_as_large_as_promised() -> None:
    """At least 20 bugs, some in each protocol; each says which history goes wrong."""
    assert len(PLANTED) >= 20
    for protocol, bugs in ZOO.items():
        assert len(bugs) > 5, protocol
        assert all(len(bug.about) > 40 for bug in bugs.values() if bug is not CORRECT), protocol


@pytest.mark.parametrize(("protocol", "bug"), PLANTED)
def test_planted_bug_is_found(protocol: str, bug: Bug) -> None:
    """Found within its number of seeds; an invariant is named; the printed seed replays it."""
    seeds = range(bug.first, bug.first + bug.seeds)
    failure = first_failure(seeds, bug, protocol=protocol)

    assert failure is not None, f"{bug.name} was not found in {seeds}"
    print(failure)
    assert failure.invariant in (*INVARIANTS, WITHIN_A_NODE), failure
    assert failure.replay == (
        f"make sim PROTOCOL={protocol} BUG={bug.name} RUNS=1 SEED={failure.seed}"
    )
    assert simulate(failure.seed, bug, protocol=protocol) == failure


def test_make_zoo_tells_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each bug: runs to the first failure, seed, seconds, invariant, the command."""
    code = main(["--protocol", "raft", "--bug", "read_before_no_op", "--processes", "2"])
    printed = capsys.readouterr().out

    assert code == 0, printed
    heading, row, summary = printed.splitlines()
    assert heading.split()[:3] == ["protocol", "bug", "runs"]
    assert row.split()[:3] == ["raft", "read_before_no_op", "2"]
    assert "linearizable reads" in row
    assert "make sim PROTOCOL=raft BUG=read_before_no_op RUNS=1 SEED=1" in row
    assert summary.startswith("1 of 1 planted bugs found")


def test_make_zoo_fails_when_a_bug_is_not_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and its name: here of a "bug" that is none."""
    monkeypatch.setitem(ZOO["raft"], "harmless", Bug("harmless"))
    monkeypatch.setattr("tests.simulation.zoo.__main__.run_one", _passes)
    code = main(["--protocol", "raft", "--bug", "harmless", "--within", "0.2", "--processes", "1"])
    printed = capsys.readouterr().out

    assert code == 1
    assert "NOT FOUND" in printed
    assert "raft harmless" in printed.splitlines()[-1]


def _passes(_: object) -> tuple[None, int]:
    """What `run_one` says of a run without a failure."""
    return None, 1
