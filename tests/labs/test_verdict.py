"""How claims and faults become one word: pass, fail, inconclusive or invalid."""

from __future__ import annotations

import pytest

from labs.harness.lab.repeat import wilson
from labs.harness.lab.verdict import EXIT_CODES, Claim, FaultRecord, VariantResult, decide
from labs.harness.testbed.errors import NodeExited


def held(*holds: bool | None, name: str = "raft") -> VariantResult:
    claims = [Claim(f"claim {number}", each, "seen") for number, each in enumerate(holds)]
    return VariantResult(name=name, expected="holds", claims=claims)


def control(*holds: bool | None) -> VariantResult:
    claims = [Claim("a side remark", True, "seen")]
    claims += [Claim(f"claim {n}", each, "seen", True) for n, each in enumerate(holds)]
    return VariantResult(name="naive", expected="breaks", claims=claims)


def fault(*, felt: bool = True, recovered: bool = True) -> FaultRecord:
    return FaultRecord("raft", "partition", "n1 | n2", 1.0, 1.1, felt, recovered)


def word(results: list[VariantResult], faults: list[FaultRecord]) -> str:
    return decide(results, faults)[0]


def test_pass_needs_the_subject_to_hold_and_the_control_to_break() -> None:
    """Every lab has a control that must break."""
    assert word([held(True, True), control(False, False)], [fault()]) == "pass"


def test_a_control_that_does_not_break_fails_the_lab() -> None:
    """If the bad variant passes, the lab failed (maelstrom#44)."""
    assert word([held(True), control(True, True)], [fault()]) == "fail"


def test_a_control_that_breaks_in_part_fails_the_lab() -> None:
    """All that the control exists to break must be broken."""
    assert word([held(True), control(False, True)], [fault()]) == "fail"


def test_a_broken_claim_of_the_subject_fails_the_lab() -> None:
    """A claim that does not hold is a fail, with the claim and its evidence in the reason."""
    decided, reason = decide([held(True, False), control(False)], [fault()])

    assert decided == "fail"
    assert "claim 1" in reason
    assert "seen" in reason


def test_a_failure_says_when_the_load_itself_was_late() -> None:
    """It stays a failure: a defect, too, may leave the load no time."""
    results = [held(True, False), control(False)]
    results[0].figures["load_late_ms"] = 582.4
    late = decide(results, [fault()])
    results[0].figures["load_late_ms"] = 12.0

    assert late[0] == "fail"
    assert "582 ms late" in late[1]
    assert "late" not in decide(results, [fault()])[1]


def test_a_fault_that_was_not_felt_makes_the_run_invalid() -> None:
    """A fault that changed nothing makes a passing run meaningless."""
    assert word([held(True), control(False)], [fault(felt=False)]) == "invalid"


def test_a_cluster_that_did_not_recover_makes_the_run_invalid() -> None:
    """Healed is not recovered."""
    assert word([held(True), control(False)], [fault(recovered=False)]) == "invalid"


def test_trouble_of_the_experiment_is_no_failure_of_the_system() -> None:
    """An outcome is kept apart from a harness failure (openraft#2006)."""
    troubled = held(False)
    troubled.trouble = "n3 did not start"

    assert word([troubled, control(False)], [fault()]) == "invalid"


def test_a_node_that_contradicts_itself_fails_the_lab() -> None:
    """The protocol stopped it, not the experiment; that no cluster recovers then is no excuse."""
    crashed = held(True)
    crashed.crash = "n2 found itself wrong and stopped: AssertionError: n4 claims to match 91"
    control_too = control(False)
    control_too.crash = "n1 found itself wrong and stopped: AssertionError"

    assert word([crashed], [fault(recovered=False)]) == "fail"
    assert word([held(True), control_too], [fault()]) == "fail"


def test_a_node_that_is_wrong_on_purpose_may_notice_and_stop() -> None:
    """A rule was taken out of its protocol: that it stops is one way to break, and the faults that
    were on by then need no recovery."""
    stopped = control(True)
    stopped.crash, stopped.may_stop = "n1 found itself wrong and stopped: AssertionError", True
    its_fault, healed = fault(recovered=False), fault()
    its_fault.variant = stopped.name

    assert stopped.outcome == "breaks"
    assert word([held(True), stopped], [healed, its_fault]) == "pass"
    its_fault.variant = held(True).name
    assert word([held(True), stopped], [healed, its_fault]) == "invalid"


def test_only_the_nodes_own_invariants_count_as_its_fault() -> None:
    """Killed, out of disk or port taken: the experiment's trouble. Exit code 70: its own."""
    log = (
        '{"event":"the node fails and stops","exception":"Traceback …\\nAssertionError: 91 > 72"}\n'
        '{"event":"stopped","exit_code":70}\n'
    )

    assert NodeExited("n2", 70, log).own_fault == "AssertionError: 91 > 72"
    assert NodeExited("n2", 70, "garbage").own_fault == "its log does not say why"
    assert [NodeExited("n2", code, log).own_fault for code in (-9, 71, 74, None)] == [""] * 4


@pytest.mark.parametrize("results", [[held(True, None), control(False)],
                                     [held(True), control(False, None)],
                                     [held(), control(False)]])  # fmt: skip
def test_an_undecided_claim_is_inconclusive(results: list[VariantResult]) -> None:
    """A checker's "unknown" is never a pass; nor is a variant that claimed nothing."""
    assert word(results, [fault()]) == "inconclusive"


def test_exit_codes() -> None:
    """pass 0, fail 1, inconclusive or invalid 2."""
    assert EXIT_CODES == {"pass": 0, "fail": 1, "inconclusive": 2, "invalid": 2}


def test_wilson_interval() -> None:
    """0 of 50 is not 0 ± 0: the 95 % interval reaches 7.1 % (tabulated value)."""
    low, high = wilson(0, 50)

    assert low == 0.0
    assert high == pytest.approx(0.0713, abs=0.0005)
    assert wilson(50, 50) == (pytest.approx(1 - high), pytest.approx(1.0))
    low, high = wilson(10, 20)
    assert (low, high) == (pytest.approx(0.299, abs=0.001), pytest.approx(0.701, abs=0.001))


def test_a_claim_that_needs_what_is_not_here_counts_for_nothing_and_is_named() -> None:
    """A claim undecided because of a missing broker: the verdict of the rest stands, and says so.

    Never counted as passed, nor as what a control has to break; alone it decides nothing.
    """
    needing = Claim("transactions", None, "not decided: needs Kafka", True, needs="Apache Kafka")
    subject, naive = held(True), control(False)
    subject.claims.append(needing)
    naive.claims.append(needing)

    assert decide([subject, naive], [fault()]) == (
        "pass",
        "each variant did what it must; 2 claims need Apache Kafka",
    )
    subject.claims[0].holds = False
    assert word([subject, naive], [fault()]) == "fail"
    subject.claims[0].holds = None
    assert word([subject, naive], [fault()]) == "inconclusive"
    subject.claims = [needing]
    assert word([subject, naive], [fault()]) == "inconclusive"
