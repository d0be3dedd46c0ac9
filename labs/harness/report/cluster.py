"""The cluster at a glance: who led when, and the timetable of the faults in words."""

from __future__ import annotations

from dataclasses import dataclass

from labs.harness.lab.verdict import FaultRecord
from labs.harness.report.data import Stay, VariantRun
from labs.harness.report.payload import nodes_of

LEADING = ("leader", "primary", "head", "distinguished", "leading", "holder")
WANTING = ("candidate", "pre-candidate", "looking", "view-change")


@dataclass(slots=True)
class Block:
    """A part of a lane, in percent of its width."""

    left: float
    width: float
    kind: str
    text: str
    told: str
    at_s: float


def kind_of(role: str) -> str:
    """How a role is coloured."""
    if role in LEADING:
        return "leads"
    if role in WANTING:
        return "wants"
    return "starting" if role == "starting" else "follows"


def lanes(variant: VariantRun) -> list[tuple[str, list[Block]]]:
    """A lane per node: its roles from the start of the history to its end."""
    end = max(variant.end_us, 1)
    return [
        (node, [_block(stay, end) for stay in variant.stays if stay.node == node and
                stay.end_us > 0 and stay.begin_us < end])
        for node in nodes_of(variant)
    ]  # fmt: skip


def _block(stay: Stay, end: int) -> Block:
    left, right = max(stay.begin_us, 0), min(stay.end_us, end)
    term = "" if stay.term is None else f" {stay.term}"
    told = f"{stay.node} {stay.role}{term and f' in term{term}'} from {left / 1e6:.3f} s"
    told += f" to {right / 1e6:.3f} s"
    width = (right - left) / end * 100
    text = f"{stay.role}{term}" if width > 7 else ""
    return Block(left / end * 100, width, kind_of(stay.role), text, told, left / 1e6)


def bands(variant: VariantRun) -> list[Block]:
    """The faults across the lanes."""
    end = max(variant.end_us, 1) / 1e6
    return [
        Block(
            fault.injected_at / end * 100,
            ((fault.healed_at or end) - fault.injected_at) / end * 100,
            "fault",
            fault.name,
            f"{fault.name} {fault.target}",
            fault.injected_at,
        )
        for fault in variant.faults
        if fault.injected_at is not None
    ]


def timetable(fault: FaultRecord) -> list[tuple[str, float | None, str]]:
    """(step, when, in words) from plan to recovery."""
    felt = fault.felt_how or ("felt" if fault.felt else "nobody looked")
    return [
        ("planned", fault.planned_at, fault.target),
        ("injected", fault.injected_at, "" if fault.injected_at is not None else "never"),
        ("felt" if fault.felt else "not felt", None, felt),
        ("healed", fault.healed_at, "" if fault.healed_at is not None else "never"),
        ("recovered" if fault.recovered else "not recovered", fault.recovered_at, ""),
    ]
