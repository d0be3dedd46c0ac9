"""Phase 0: Medeiros §4.2, fast leader election; and where it departs from the paper."""

from __future__ import annotations

from services.protocols.zab.messages import CEpoch, Notification
from tests.protocols.zab.helpers import (
    ELECTION,
    HEARTBEAT,
    Ensemble,
    accepted,
    established,
    events,
    following,
    looking,
    node,
    of,
    tick,
)


def votes(core: object) -> set[str | None]:
    return {m.vote for m in of(core.ready(), Notification)}  # type: ignore[attr-defined]


def test_the_first_notifications_go_to_everybody() -> None:
    """§4.2: a peer that starts an election begins a round and tells all others its vote."""
    ensemble = Ensemble(5)
    ensemble.collect()

    assert {(m.src, m.dst) for m in ensemble.network} == {
        (a, b) for a in ensemble.names for b in ensemble.names if a != b
    }
    assert {(m.round, m.state) for m in ensemble.network} == {(1, "looking")}


def test_a_later_current_epoch_wins_over_a_longer_history() -> None:
    """§4.2 and step l.1.2: compare currentEpoch first, then the last zxid."""
    core = node([1, 2, 2, 2])
    core.step(looking("n2", current=3, last=(1, 1)))

    assert votes(core) == {"n2"}


def test_a_longer_history_wins_among_equal_epochs() -> None:
    """§4.2: of equal currentEpochs, the greater zxid."""
    core = node([1, 1, 1])
    core.step(looking("n2", current=1, last=(1, 2)))
    assert votes(core) == {"n1"}
    core.step(looking("n3", current=1, last=(1, 4)))
    assert votes(core) == {"n3"}


def test_the_greater_id_wins_among_equals() -> None:
    """§4.2: of equal histories, the greater id."""
    core = node([1])
    core.step(looking("n3", current=1, last=(1, 1)))
    assert votes(core) == {"n3"}
    core.step(looking("n2", current=1, last=(1, 1)))
    assert core.vote == "n3"


def test_a_later_round_is_taken_over_and_clears_the_votes() -> None:
    """§4.2: a notification of a later round: take the round, forget the votes, vote anew."""
    core = node([1], size=5)
    core.step(looking("n5", current=1, last=(1, 1)))
    core.ready()
    core.step(looking("n2", round=4, current=1, last=(1, 1)))

    sent = of(core.ready(), Notification)
    assert {(m.round, m.vote) for m in sent} == {(4, "n2")}
    assert core.vote != "n5", "its vote was of an earlier round"


def test_who_is_in_an_earlier_round_is_told() -> None:
    """§4.2: a notification of an earlier round does not count; its sender is told the later one."""
    core = node([1])
    core.step(looking("n2", round=4))
    core.ready()
    core.step(looking("n3", round=2, current=9, last=(9, 9)))

    assert core.vote != "n3"
    assert [m.round for m in of(core.ready(), Notification, "n3")] == [4]


def test_a_quorum_elects_after_a_while_without_better_votes() -> None:
    """§4.2: with a quorum for its vote, wait a little for a better one, then conclude."""
    core = node([1])
    core.step(looking("n2", vote="n1", current=1, last=(1, 0)))
    core.ready()
    tick(core, HEARTBEAT - 1)
    assert core.status()["role"] == "looking"
    tick(core, 1)
    assert core.status()["role"] == "candidate"


def test_with_all_votes_there_is_nothing_to_wait_for() -> None:
    """§4.2: votes of the whole ensemble."""
    core = node([1])
    core.step(looking("n2", vote="n1", current=1, last=(1, 0)))
    core.step(looking("n3", vote="n1", current=1, last=(1, 0)))

    assert core.status()["role"] == "candidate"


def test_who_is_elected_elsewhere_is_followed() -> None:
    """§4.2: the elected leads, the others follow it: CEPOCH is the first thing they say."""
    core = node([1])
    core.step(looking("n2", vote="n2", current=2, last=(2, 2)))
    core.step(looking("n3", vote="n2", current=1, last=(1, 0)))

    ready = core.ready()
    assert core.status()["role"] == "follower"
    assert of(ready, CEpoch) == [CEpoch("n1", "n2", 1)]


def test_a_leader_with_a_quorum_is_joined_without_an_election() -> None:
    """§4.2, OutOfElection: a quorum that follows or leads, the leader among it."""
    core = node([1], size=5)
    core.step(looking("n2", vote="n4", state="following", round=7, stands=False))
    assert core.status()["role"] == "looking"
    core.step(looking("n4", vote="n4", state="leading", round=7, stands=False))

    assert core.elected == "n4"
    assert core.round == 7


def test_a_leader_that_is_not_heard_itself_is_not_joined() -> None:
    """§4.2: the leader's own word is needed: a node deaf to it would try again and again."""
    core = node([1], size=5)
    for src in ("n2", "n3", "n5"):
        core.step(looking(src, vote="n4", state="following", round=7, stands=False))

    assert core.status()["role"] == "looking"


def test_who_follows_or_leads_answers_but_does_not_vote_again() -> None:
    """§4.2: they tell their leader. A node that is deaf does not depose a leader that is well."""
    for core, leader in ((accepted([1], epoch=2), "n2"), (established([1]), "n1")):
        core.ready()
        core.step(looking("n3", round=9, current=9, last=(9, 9)))

        (answer,) = of(core.ready(), Notification)
        assert (answer.dst, answer.vote, answer.stands) == ("n3", leader, False)
        assert core.elected == leader


def test_a_node_that_hears_no_quorum_does_not_stand() -> None:
    """Departure: or it would be elected by those who hear it, and hear none of them."""
    core = node([5], size=5)
    core.step(looking("n2", stands=False))
    assert {m.stands for m in of(core.ready(), Notification)} == {False}
    core.step(looking("n3", stands=False))
    assert {m.stands for m in of(core.ready(), Notification)} == {True}
    tick(core, ELECTION)
    assert {m.stands for m in of(core.ready(), Notification)} >= {False}
    assert core.vote is None


def test_nobody_votes_for_a_history_less_recent_than_its_own() -> None:
    """Departure: n1 does not stand, for it hears no quorum, but what it has may be committed."""
    core = node([1, 1], size=5)
    core.step(looking("n2", current=1, last=(1, 1)))

    assert core.vote is None


def test_a_totally_deaf_node_with_the_best_history_does_not_hold_up_the_others() -> None:
    """n3 sends and hears nothing: n1 and n2 elect one of them all the same."""
    ensemble = Ensemble(3, histories={"n1": [1], "n2": [1], "n3": [1, 1]})
    ensemble.cut = {("n1", "n3"), ("n2", "n3")}

    ensemble.until(lambda: any(core.leads() for core in ensemble.cores.values()))
    assert [name for name, core in ensemble.cores.items() if core.leads()] == ["n2"]


def test_a_node_that_does_not_hear_the_leader_does_not_depose_it() -> None:
    """One link is cut, one way: the leader goes on in its epoch."""
    ensemble = Ensemble(5)
    leader = ensemble.leader()
    epoch = ensemble.cores[leader].accepted_epoch
    deaf = next(name for name in ensemble.names if name != leader)
    ensemble.cut = {(leader, deaf)}
    ensemble.events.clear()
    ensemble.tick(20 * ELECTION)

    assert ensemble.cores[leader].leads()
    assert ensemble.cores[leader].accepted_epoch == epoch
    assert ensemble.cores[deaf].status()["role"] == "looking"
    assert {name for name, event in ensemble.events if event.name == "look"} == {deaf}
    assert "become_candidate" not in {event.name for _, event in ensemble.events}
    ensemble.cut = set()
    assert ensemble.leader() == leader


def test_a_follower_gives_a_silent_leader_up() -> None:
    """§IV: a follower that does not hear from its leader goes back to the election."""
    core = following([1])
    tick(core, 2 * ELECTION)

    assert "look" in events(core.ready())
    assert core.status()["role"] == "looking"


def test_a_follower_whose_leader_looks_in_a_later_round_does_not_wait() -> None:
    """It gave up; but what it said before it was elected may come late, and means nothing."""
    core = following([1])
    core.step(looking("n2", round=core.round))
    assert core.status()["role"] == "follower"
    core.step(looking("n2", round=core.round + 1))
    assert core.status()["role"] == "looking"
