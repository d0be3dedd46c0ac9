"""Seeded kills and rebalances: what each guarantee promises, and bugs that must be caught.

Goal: "1,000 kills and rebalances in a seeded run: at-least-once loses nothing, effectively-once
applies each exactly once".
Method: `simulation.Simulation`, everything from one seed; on a failure the seed is in the message.
"""

from __future__ import annotations

import pytest

from services.protocols.delivery import DeliveryCore, Guarantee
from services.protocols.delivery.core import Assignment
from tests.protocols.delivery.simulation import Simulation

STRIKES = 1_000


def run(seed: int, guarantee: Guarantee, strikes: int, core: type = DeliveryCore) -> Simulation:
    simulation = Simulation(seed, guarantee, strikes=strikes, core=core)
    try:
        simulation.run()
        simulation.check()
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, {guarantee}, {strikes} strikes: {error}") from error
    return simulation


def test_at_least_once_loses_nothing_and_repeats_something() -> None:
    """A thousand kills and rebalances; and since they do bite, some records are applied twice."""
    done = run(1, "at_least_once", STRIKES)
    print(done.strikes, len(done.messages), "repeated", done.repeated())

    assert sum(done.strikes.values()) == STRIKES
    assert min(done.strikes[kind] for kind in ("kill", "rebalance", "zombie")) > 100
    assert done.lost() == 0
    assert done.repeated() > 100


def test_effectively_once_applies_each_exactly_once() -> None:
    """The same thousand, with the id kept in the same step as the effect."""
    done = run(1, "effectively_once", STRIKES)

    assert len(done.messages) > 5_000
    assert (done.lost(), done.repeated()) == (0, 0)


def test_transactions_apply_each_exactly_once() -> None:
    """The commit is part of the transaction, and a zombie's transaction is fenced off."""
    done = run(1, "transactional", STRIKES)

    assert (done.lost(), done.repeated()) == (0, 0)


def test_at_most_once_repeats_nothing_and_loses_something() -> None:
    """Committed before it is processed: never twice, and what a kill catches in between is gone."""
    done = run(1, "at_most_once", STRIKES)

    assert done.repeated() == 0
    assert done.lost() > 100


@pytest.mark.parametrize("seed", range(100, 140))
@pytest.mark.parametrize("guarantee", ["at_least_once", "effectively_once", "transactional"])
def test_other_seeds(seed: int, guarantee: Guarantee) -> None:
    """Short runs of other seeds: other sizes of batches, other bounds, other courses."""
    run(seed, guarantee, 25)


class CommitsTheHighest(DeliveryCore):
    """Commits up to the highest finished record, whatever is still under way below it."""

    def received(self, records):  # type: ignore[no-untyped-def]
        super().received(records)
        for found in self._assignments.values():
            if not isinstance(found, _Hasty):
                found.__class__ = _Hasty


class _Hasty(Assignment):
    __slots__ = ()

    def finish(self, offset: int) -> None:
        super().finish(offset)
        self.position = max(self.position or 0, offset + 1)


class KeepsNoLanes(DeliveryCore):
    """Processes records of one key side by side."""

    def _queue(self, found, record):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        super()._queue(found, replace(record, key=None))


class BelievesTheDead(DeliveryCore):
    """Takes what a batch of an earlier assignment reports for the present one's."""

    def finished(self, number, outcomes, now):  # type: ignore[no-untyped-def]
        lane, batch = self._batches[number]
        now_ours = self._assignments.get(batch.partition)
        if now_ours is not None and lane.assignment is not now_ours:
            now_ours.position = max(now_ours.position or 0, batch.records[-1].offset + 1)
        super().finished(number, outcomes, now)


@pytest.mark.parametrize(
    ("bug", "caught"),
    [
        (CommitsTheHighest, "was lost|no dead letter|no rest|moved back"),
        (KeepsNoLanes, "out of order"),
        (BelievesTheDead, "was lost|no dead letter|no rest|moved back"),
    ],
)
def test_planted_bugs_are_caught(bug: type[DeliveryCore], caught: str) -> None:
    """A simulation that finds nothing wrong with a wrong core proves nothing about a right one."""
    with pytest.raises(AssertionError, match=caught):
        run(7, "at_least_once", 300, bug)
