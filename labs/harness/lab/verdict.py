"""What a run decided, and how that becomes one word and an exit code.

The outcome of the system (a claim holds or not) is kept apart from the trustworthiness of the
experiment: a fault that nobody felt, a cluster that never started or a checker that gave up says
nothing about the system, so such a run is `invalid` or `inconclusive`, never `pass` or `fail`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import msgspec

Word = Literal["pass", "fail", "inconclusive", "invalid"]
Expectation = Literal["holds", "breaks"]
Outcome = Literal["holds", "breaks", "unknown"]

# A load that is itself as late as this met a machine with no time for it, nor for the services.
BUSY_MS = 100

EXIT_CODES: dict[Word, int] = {"pass": 0, "fail": 1, "inconclusive": 2, "invalid": 2}


class Shown(msgspec.Struct):
    """A counterexample as the report draws it: `ops` by their index in the variant's history.

    `forbidden` (ns): where an operation would have had to take effect, and could not.
    """

    anomaly: str
    summary: str
    ops: list[int]
    key: str | None = None
    forbidden: tuple[int, int] | None = None


class Claim(msgspec.Struct):
    """A sentence about the system, checked against evidence of this run.

    `holds` is None when the evidence does not decide it (a checker said "unknown").
    `control_breaks` marks the claims that the control exists to break. `counterexample`: a story
    of at most six operations, a sentence each, when a checker found one; `shown`: the same, for
    drawing. `needs`: what was missing to decide it at all ("Apache Kafka"); such a claim counts
    neither for nor against its variant.
    """

    text: str
    holds: bool | None
    evidence: str
    control_breaks: bool = False
    counterexample: list[str] = []
    shown: Shown | None = None
    needs: str = ""


class FaultRecord(msgspec.Struct):
    """One fault of the run: planned, injected, felt, recovered. Times in seconds of the variant."""

    variant: str
    name: str
    target: str
    planned_at: float
    injected_at: float | None
    felt: bool
    recovered: bool
    felt_how: str = ""
    healed_at: float | None = None
    recovered_at: float | None = None


class VariantResult(msgspec.Struct):
    """What one variant showed. `trouble` says why the experiment itself can't be trusted.

    `crash`: a node contradicted itself and stopped, which no variant may do, nor a control, unless
    it `may_stop`: a rule was taken out of its protocol, and that is one way to notice.
    `members`: what really ran as Redis and Kafka, by the member's name.
    `start_ns`: what the machine's monotonic clock read at time 0 of the history; the nodes' own
    telemetry has that clock. `nodes` and `places`: who replicates, where clients stand.
    """

    name: str
    expected: Expectation
    claims: list[Claim] = []
    trouble: str | None = None
    crash: str | None = None
    may_stop: bool = False
    elapsed_s: float = 0.0
    figures: dict[str, Any] = {}
    about: str = ""
    start_ns: int = 0
    nodes: list[str] = []
    places: list[str] = []
    members: dict[str, str] = {}

    @property
    def outcome(self) -> Outcome:
        """A control breaks when *all* it exists to break is broken; one left whole means no."""
        if self.crash is not None:
            return "breaks"
        relevant = [claim for claim in self.claims if not claim.needs]
        if self.trouble is not None or not relevant:
            return "unknown"
        if self.expected == "breaks":
            relevant = [claim for claim in relevant if claim.control_breaks]
        if any(claim.holds is None for claim in relevant):
            return "unknown"
        if self.expected == "breaks":
            return "breaks" if not any(claim.holds for claim in relevant) else "holds"
        return "holds" if all(claim.holds for claim in relevant) else "breaks"


class Verdict(msgspec.Struct):
    """The whole run, as `verdict.json` holds it. `plane`: where faults of links struck.

    `answer`, `follow_ups`, `misses` (of a run that passed) and `comparison` (a title, then a cell
    per variant of `compared`) are those of the console, for the report.
    """

    lab: str
    questions: list[int]
    substrate: str
    plane: str
    seed: int
    verdict: Word
    reason: str
    elapsed_s: float
    variants: list[dict[str, Any]]
    faults: list[FaultRecord]
    environment: dict[str, Any]
    virtual_s: float | None = None  # in a simulation: what `elapsed_s` of real time stood for
    question: str = ""
    answer: str = ""
    follow_ups: dict[str, str] = {}
    misses: str = ""
    comparison: list[list[str]] = []
    compared: list[str] = []

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def save(self, directory: Path) -> None:
        path = directory / "verdict.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


def decide(results: list[VariantResult], faults: list[FaultRecord]) -> tuple[Word, str]:
    """The run's word and the sentence that explains it."""
    for result in results:
        # Before the faults: from that one, no cluster recovers.
        if result.crash is not None and not result.may_stop:
            return "fail", f"{result.name}: {result.crash}"
    for result in results:
        if result.trouble is not None:
            return "invalid", f"{result.name}: {result.trouble}"
    stopped = {result.name for result in results if result.crash is not None}
    for fault in faults:
        if fault.variant in stopped:
            continue
        what = f"{fault.variant}: {fault.name} on {fault.target}"
        if not fault.felt:
            return "invalid", f"{what} was not felt, so the run shows nothing"
        if not fault.recovered:
            return "invalid", f"{what} was healed, but the cluster did not recover"
    for result in results:
        if result.outcome == "unknown":
            return "inconclusive", f"{result.name}: {_undecided(result)}"
    for result in results:
        if result.outcome != result.expected:
            return "fail", f"{result.name} {_surprise(result)}{_busy(result)}"
    return "pass", "each variant did what it must" + _needing(results)


def _needing(results: list[VariantResult]) -> str:
    """What was not decided for want of something, so that nobody takes it for passed."""
    counts = Counter(claim.needs for result in results for claim in result.claims if claim.needs)
    return "".join(
        f"; {count} claim{'s' if count > 1 else ''} need{'' if count > 1 else 's'} {what}"
        for what, count in counts.items()
    )


def _undecided(result: VariantResult) -> str:
    undecided = [claim.text for claim in result.claims if claim.holds is None and not claim.needs]
    return f"not decided: {undecided[0]}" if undecided else "no claim was made"


def _surprise(result: VariantResult) -> str:
    if result.expected == "holds":
        broken = next(claim for claim in result.claims if claim.holds is False)
        return f"must hold, but this did not: {broken.text} ({broken.evidence})"
    whole = next(claim for claim in result.claims if claim.control_breaks and claim.holds)
    return f"is the control and must break, but this held: {whole.text} ({whole.evidence})"


def _busy(result: VariantResult) -> str:
    """What speaks for another run: it changes no verdict, for a defect too may use up a machine."""
    late_ms = result.figures.get("load_late_ms", 0)
    if late_ms < BUSY_MS:
        return ""
    return f"; the load itself came up to {late_ms:.0f} ms late, as on a machine that is busy"


def as_plain(result: VariantResult) -> dict[str, Any]:
    """A variant as `verdict.json` shows it, with its outcome spelled out."""
    plain: dict[str, Any] = msgspec.to_builtins(result)
    return {"name": plain.pop("name"), "expected": plain.pop("expected"), "outcome": result.outcome,
            **plain}  # fmt: skip
