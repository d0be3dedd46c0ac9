"""A node whose disk was lost: it gives out no dot twice, and gets what no log has any more.

Goal: its new writes are writes of their own at every node, and it holds what the others hold, with
no effect before its cause in between. Method: replicas whose messages a test delivers by hand.
"""

from __future__ import annotations

from typing import Any

import pytest

from services.protocols.causal import Session
from services.protocols.causal.messages import Fetch, States, Write
from tests.protocols.causal.replicas import Replicas

RESEND = 2


def replicas() -> Replicas:
    return Replicas(resend_ticks=RESEND, anti_entropy_ticks=3)


def let_forget(made: Replicas) -> None:
    """Until every node has said what it has, and nothing is kept for sending."""
    for _ in range(30):
        made.tick(1)
        made.settle()
    assert not any(log.writes for core in made.cores.values() for log in core.logs.values())


def test_a_write_after_the_loss_is_not_taken_for_one_before() -> None:
    """n1's first write is everywhere; its disk is lost, and its next write is the first on the new
    one. It was acknowledged: all must get it."""
    made = replicas()
    made.write("n1", "x", "before", Session())
    let_forget(made)
    made.wipe("n1")
    made.write("n1", "y", "after", Session())
    for _ in range(30):
        made.tick(1)
        made.settle()

    assert [made.value(node, "y") for node in made.names] == ["after"] * 3


def test_a_new_disk_gets_what_the_logs_have_no_longer() -> None:
    """All had everything, and nothing was kept for sending: n1 fetches the state of another node,
    keeps it on its disk, and a session that has seen it is served again."""
    made = replicas()
    for number in range(5):
        session = made.replies[made.write("n2", f"k{number}", "v", Session())].session
    let_forget(made)
    made.wipe("n1")
    waits = made.read("n1", "k4", session)
    assert waits not in made.replies
    for _ in range(30):
        made.tick(1)
        made.settle()

    assert made.shown(waits) == "v"
    made.restart("n1")
    assert [made.value("n1", f"k{number}") for number in range(5)] == ["v"] * 5
    assert made.cores["n1"].digest() == made.cores["n2"].digest()


def test_who_was_away_for_longer_than_the_logs_go_back_fetches_the_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Writes are not refused because one node is silent, and what is kept for it is bounded, in
    bytes: few large ones are as much as many small ones."""
    monkeypatch.setattr("services.protocols.causal.logs.LOG_BYTES_MAX", 10_000)
    made = replicas()
    for number in range(20):
        made.write("n1", f"k{number}", "v" * 2_000, Session())
        made.lose("n3")
        made.settle()
    log = made.cores["n1"].logs[made.cores["n1"].disk]
    assert 0 < sum(len(write.value or b"") for write in log.writes.values()) <= 10_000
    for _ in range(40):
        made.tick(1)
        made.settle()

    assert made.cores["n3"].digest() == made.cores["n1"].digest()
    assert made.cores["n3"].applied == made.cores["n1"].applied


def test_what_waits_for_its_causes_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """n3 lacks n1's first write, and is sent the later ones: of those it keeps what has room, and
    always the one that all others wait for."""
    monkeypatch.setattr("services.protocols.causal.logs.LOG_BYTES_MAX", 60_000)
    made = Replicas(resend_ticks=RESEND)
    for number in range(20):
        made.write("n1", f"k{number}", "v" * 10_000, Session())
        if number == 0:
            made.lose("n3")
    made.deliver("n1", "n3")
    waiting = made.cores["n3"].pending[made.cores["n1"].disk]
    assert 0 < sum(len(write.value or b"") for write in waiting.values()) <= 60_000
    for _ in range(60):
        made.tick(1)
        made.settle()

    assert made.cores["n3"].digest() == made.cores["n1"].digest()


def test_what_is_lent_is_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pieces, and between them n2 writes a cause that is in the first one's place and an effect
    that is in the second's: with the second alone n1 would show "answer" without "question"."""
    monkeypatch.setattr("services.protocols.causal.logs.BATCH_WRITES", 1)
    made = replicas()
    session = Session()
    for key in ("answer", "question"):  # sent in the order of their keys
        session = made.replies[made.write("n2", key, "old", session)].session
    let_forget(made)
    made.wipe("n1")
    made.tick(1)
    while not any(isinstance(message, States) for message in made.held):
        ours = [message for message in made.held if not _by_n3(message)]
        made.held = ours
        made.deliver()
        if not made.held:
            made.tick(1)
    session = made.replies[made.write("n2", "question", "new", session)].session
    made.write("n2", "answer", "new", session)
    made.held = [each for each in made.held if isinstance(each, States | Fetch)]
    while made.held:
        made.deliver()
        made.held = [each for each in made.held if isinstance(each, States | Fetch)]

    assert (made.value("n1", "question"), made.value("n1", "answer")) == ("old", "old")
    for _ in range(30):
        made.tick(1)
        made.settle()
    assert (made.value("n1", "question"), made.value("n1", "answer")) == ("new", "new")


def _by_n3(message: Any) -> bool:
    return "n3" in (message.src, message.dst)


def test_the_order_of_versions_is_that_of_their_numbers() -> None:
    """Ties of time go by node, whatever its disk is called: one name may begin another."""
    made = Replicas()
    core = made.cores["n1"]
    core.nodes = ("n", "n-a")
    writes = [Write(origin, 1, 7, "x", b"") for origin in ("n-f0000", "n-a-00000")]
    assert [write.version[1] for write in sorted(writes, key=lambda w: w.version)] == ["n", "n-a"]
    assert core.version(writes[0]) < core.version(writes[1])
