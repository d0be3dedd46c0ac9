"""Hinted handoff (Dynamo §4.6): a stand-in gives up a hint once its owner has what it says."""

from __future__ import annotations

from random import Random

from services.protocols.quorum import Quorum, Siblings, Version
from services.protocols.quorum.messages import HandedOff, Replicate


def stand_in() -> Quorum:
    """n4, of four nodes, where the last write wins."""
    return Quorum(
        "n4",
        ("n1", "n2", "n3"),
        replicas=3,
        read_quorum=2,
        write_quorum=2,
        random=Random(1),
        sloppy=True,
        conflicts="last-write-wins",
    )


def test_a_later_stamp_is_not_taken_for_handed_over_because_its_dot_is_covered() -> None:
    """A client reads "new" (n1, stamp 100) and writes "newer" at n2, whose clock is at 50. n2 has
    not got "new", so n3 is handed "newer" alone, with the context that covers "new". Meanwhile the
    hint with "new" comes, which wins. n3's answer says nothing of it: the hint stays."""
    core = stand_in()
    newer = Siblings({"d1": 1, "d2": 1}, [Version("d2", 1, 50, b"newer")])
    new = Siblings({"d1": 1}, [Version("d1", 1, 100, b"new")])
    core.step(Replicate("n2", "n4", 1, 1, "x", newer, owner="n3"))
    core.step(Replicate("n1", "n4", 1, 1, "x", new, owner="n3"))
    core.step(HandedOff("n3", "n4", "x", newer))

    assert [version.value for version in core.hints["n3", "x"].versions] == [b"new"]

    core.step(HandedOff("n3", "n4", "x", core.hints["n3", "x"]))
    assert not core.hints
