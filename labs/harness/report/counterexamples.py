"""The counterexamples as the checkers told them, with lanes and links to trace and log lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labs.harness.checkers import Counterexample, draw_svg
from labs.harness.report.data import VariantRun, did, ended_ns


@dataclass(slots=True)
class Involved:
    """An operation of a counterexample, for its table."""

    number: int
    process: int
    place: str
    node: str
    did: str
    type: str
    begin_s: float
    end_s: float | None


@dataclass(slots=True)
class Told:
    """One counterexample. `svg` is markup of the checkers' own, with everything in it escaped."""

    claim: str
    anomaly: str
    summary: str
    sentences: Sequence[tuple[str, int | None]]
    svg: str
    involved: list[Involved]


def told(variant: VariantRun) -> list[Told]:
    """The counterexamples of a variant's claims, in their order."""
    ops = variant.history.ops
    position = {op.index: at for at, op in enumerate(ops)}
    found = []
    for claim in variant.result.claims:
        shown = claim.shown
        if shown is None:
            if claim.counterexample:
                plain = [(sentence, None) for sentence in claim.counterexample]
                found.append(Told(claim.text, "", "", plain, "", []))
            continue
        positions = [position[index] for index in shown.ops if index in position]
        own = [ops[at] for at in positions]
        story = Counterexample(shown.anomaly, shown.summary, own, shown.key, shown.forbidden)
        # The order in which the sentences come: by the end of the operations.
        ordered = sorted(positions, key=lambda at: (ops[at].return_ns or 1 << 62, ops[at].index))
        numbers: list[int | None] = [variant.number(at) for at in ordered]
        if len(numbers) != len(claim.counterexample):
            numbers = [None] * len(claim.counterexample)
        found.append(
            Told(
                claim.text,
                shown.anomaly,
                shown.summary,
                list(zip(claim.counterexample, numbers, strict=True)),
                draw_svg(variant.history, story) if own else "",
                [_involved(variant, at) for at in positions],
            )
        )
    return found


def _involved(variant: VariantRun, at: int) -> Involved:
    op = variant.history.ops[at]
    end = ended_ns(op)
    return Involved(
        variant.number(at),
        op.process,
        op.client or "",
        op.node or "",
        did(op),
        op.type,
        op.invoke_ns / 1e9,
        None if end is None else end / 1e9,
    )
