"""What the causal core promises: Terry et al. 1994's four guarantees, Lloyd et al. 2011's rules.

The guarantees are quoted from *Session Guarantees for Weakly Consistent Replicated Data*, §3.
"""

from __future__ import annotations

import pytest

from services.protocols.causal import Level, Session
from tests.protocols.causal.replicas import Replicas

BOTH: list[Level] = ["causal", "session"]


@pytest.mark.parametrize("level", BOTH)
def test_read_your_writes(level: Level) -> None:
    """ "If Read R follows Write W in a session and R is performed at server S at time t, then W is
    included in DB(S,t)." """
    made = Replicas()
    session = made.replies[made.write("n1", "x", "1", Session(), level)].session
    read = made.read("n2", "x", session, level)
    assert read not in made.replies, "it waits"
    made.deliver("n1", "n2")
    assert made.shown(read) == "1"


@pytest.mark.parametrize("level", BOTH)
def test_monotonic_reads(level: Level) -> None:
    """ "If Read R1 occurs before R2 in a session …, then RelevantWrites(S1,t1,R1) is a subset of
    DB(S2,t2)." """
    made = Replicas()
    made.write("n1", "x", "1", Session())
    session = made.replies[made.read("n1", "x", Session(), level)].session
    read = made.read("n3", "x", session, level)
    assert read not in made.replies
    made.deliver("n1", "n3")
    assert made.shown(read) == "1"


@pytest.mark.parametrize("level", BOTH)
def test_monotonic_writes(level: Level) -> None:
    """ "If Write W1 precedes Write W2 in a session, then, for any server S2, if W2 in DB(S2) then
    W1 is also in DB(S2) and WriteOrder(W1,W2)." """
    made = Replicas()
    first = made.replies[made.write("n1", "x", "1", Session(), level)]
    made.deliver("n1", "n2")
    second = made.replies[made.write("n2", "x", "2", first.session, level)]
    made.deliver("n2", "n3")
    assert made.value("n3", "x") is None, "the second waits for the first"
    made.deliver("n1", "n3")
    assert made.value("n3", "x") == "2"
    assert first.write is not None
    assert second.write is not None
    assert first.write.version < second.write.version


@pytest.mark.parametrize(("level", "kept"), [("causal", True), ("session", False)])
def test_writes_follow_reads(level: Level, kept: bool) -> None:
    """ "If Read R1 precedes Write W2 in a session …, then, for any server S2, if W2 is in DB(S2)
    then any W1 in RelevantWrites(S1,t1,R1) is also in DB(S2)": what `session` does without."""
    made = Replicas()
    made.write("n1", "question", "?", Session(), level)
    made.deliver("n1", "n2")
    session = made.replies[made.read("n2", "question", Session(), level)].session
    made.write("n2", "answer", "!", session, level)
    made.deliver("n2", "n3")
    assert made.value("n3", "question") is None
    assert (made.value("n3", "answer") is None) == kept
    made.settle()
    assert made.value("n3", "answer") == "!"


def test_eventual_waits_for_nothing() -> None:
    """The token is not heeded: the past is shown."""
    made = Replicas()
    session = made.replies[made.write("n1", "x", "1", Session(), "eventual")].session
    assert made.shown(made.read("n2", "x", session, "eventual")) is None


def test_who_withdraws_has_written_nothing() -> None:
    """Definite: it does not happen later, either."""
    made = Replicas()
    session = made.replies[made.write("n1", "x", "1", Session())].session
    late = made.write("n2", "x", "2", session)
    assert made.cores["n2"].withdraw(late)
    assert not made.cores["n2"].withdraw(late)
    made.settle()
    assert late not in made.replies
    assert [made.value(node, "x") for node in made.names] == ["1"] * 3


def test_conflicting_writes_end_alike_whatever_comes_first() -> None:
    """COPS §3.2, convergent conflict handling: the same one stays at every replica."""
    made = Replicas()
    for node in made.names:
        made.write(node, "x", node, Session())
    made.deliver(src="n3")
    made.deliver(src="n1")
    made.settle()
    assert {made.value(node, "x") for node in made.names} == {"n3"}


def test_a_newer_version_of_the_key_is_not_the_dependency() -> None:
    """Why dependencies are vectors (see the package): n3 has a later y and lacks x, which an
    earlier y depends on. It must not show z, which depends on that."""
    made = Replicas()
    alice = made.replies[made.write("n1", "x", "1", Session())].session
    made.deliver("n1", "n2")
    bob = made.replies[made.write("n2", "y", "1", alice)].session
    bob = made.replies[made.write("n2", "z", "1", bob)].session
    for number in range(5):  # n3's own clock is well ahead
        made.write("n3", "y", f"mine {number}", Session())
    made.deliver("n2", "n3")
    assert (made.value("n3", "y"), made.value("n3", "z")) == ("mine 4", None)
    made.settle()
    assert (made.value("n3", "x"), made.value("n3", "z")) == ("1", "1")


def test_a_write_that_comes_again_is_known() -> None:
    """Replication is idempotent: nothing is applied, nothing persisted twice."""
    made = Replicas()
    made.write("n1", "x", "1", Session())
    again = [message for message in made.held if message.dst == "n2"]
    made.settle()
    disk = list(made.disks["n2"])
    made.held = again
    made.settle()
    assert made.disks["n2"] == disk


def test_what_was_lost_is_sent_again_until_everybody_has_it() -> None:
    """And then kept for sending no more."""
    made = Replicas(resend_ticks=2)
    made.write("n1", "x", "1", Session())
    made.lose("n2")
    made.lose("n3")
    made.tick(5)
    made.settle()
    assert [made.value(node, "x") for node in made.names] == ["1"] * 3
    made.tick(4)
    made.settle()
    made.tick(2)
    assert not any(log.writes for log in made.cores["n1"].logs.values())


def test_anti_entropy_goes_round_a_broken_link() -> None:
    """n3 has n1's write from n2: no cause is missing for as long as its origin is silent."""
    made = Replicas(anti_entropy_ticks=1)
    made.write("n1", "x", "1", Session())
    made.deliver("n1", "n2")
    for _ in range(20):
        made.tick(1)
        made.held = [m for m in made.held if {m.src, m.dst} != {"n1", "n3"}]
        made.settle()
    assert made.value("n3", "x") == "1"


def test_after_a_restart_dots_go_on_where_they_were() -> None:
    """What was acknowledged is on the disk; so is the clock, and the peers get what they lack."""
    made = Replicas(resend_ticks=2)
    first = made.replies[made.write("n1", "x", "1", Session())].write
    made.held.clear()
    made.restart("n1")
    second = made.replies[made.write("n1", "x", "2", Session())].write
    assert first is not None
    assert second is not None
    assert (second.number, second.version > first.version) == (2, True)
    made.tick(5)
    made.settle()
    assert [made.value(node, "x") for node in made.names] == ["2"] * 3


def test_an_image_stands_for_the_whole_log() -> None:
    """A core made of it is the same, and knows what others may lack."""
    made = Replicas()
    for number in range(3):
        made.write("n1", f"k{number}", "1", Session())
    made.deliver("n1", "n2")
    core = made.cores["n1"]
    made.disks["n1"] = core.image()
    made.restart("n1")
    again = made.cores["n1"]
    kept = [{disk: log.writes for disk, log in each.logs.items()} for each in (again, core)]
    assert (again.states, again.applied, again.disk) == (core.states, core.applied, core.disk)
    assert kept[0] == kept[1]


@pytest.mark.parametrize("token", ["", "/", "n1:3,n2:1/n1:3", "/n-a:12"])
def test_a_token_is_read_as_it_was_given(token: str) -> None:
    """An empty one begins a session."""
    assert Session.of(token).token() == (token or "/")


@pytest.mark.parametrize(
    "token", ["n1", "n1:3", "n1:-1/", "n1:3,/", "N1:3/", "n1:3/n1:3/", "n1:1e3/"]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    """Rather than to promise what it does not say."""
    with pytest.raises(ValueError, match="not a token"):
        Session.of(token)
