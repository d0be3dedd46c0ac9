"""Executions of several processes for hypothesis to draw, and who happened before whom in them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

PROCESSES = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Happening:
    """An event: local, or the sending of a message, when `receives` is None; else the receipt of
    what event number `receives` sent. `wall`: what the process's wall clock says."""

    process: str
    receives: int | None
    wall: int


@st.composite
def executions(draw: st.DrawFn) -> list[Happening]:
    """Up to 25 events in an order in which they can have happened. Any event may be a sending; its
    message may arrive any number of times, at anybody else. Wall clocks are off and may be set."""
    found: list[Happening] = []
    skews = {process: draw(st.integers(-50, 50)) for process in PROCESSES}
    for now in range(draw(st.integers(1, 25))):
        process = draw(st.sampled_from(PROCESSES))
        if draw(st.booleans()) and draw(st.booleans()):
            skews[process] = draw(st.integers(-50, 50))
        sent = [number for number, each in enumerate(found) if each.process != process]
        receives = draw(st.sampled_from(sent)) if sent and draw(st.booleans()) else None
        found.append(Happening(process, receives, 1_000 + now + skews[process]))
    return found


def happened_before(execution: list[Happening]) -> list[set[int]]:
    """For each event the numbers of all that happened before it, by closure."""
    before: list[set[int]] = []
    last: dict[str, int] = {}
    for number, event in enumerate(execution):
        causes = {last[event.process]} if event.process in last else set()
        if event.receives is not None:
            causes.add(event.receives)
        before.append(causes.union(*(before[cause] for cause in causes)))
        last[event.process] = number
    return before
