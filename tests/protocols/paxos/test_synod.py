"""*Paxos Made Simple* §2: the Synod, a test per sentence; and duelling proposers."""

from __future__ import annotations

from random import Random

import pytest

from services.protocols.paxos.synod import (
    Accept,
    Accepted,
    Acceptor,
    Learner,
    Message,
    Prepare,
    Promise,
    Proposal,
    Proposer,
    Reject,
)

ACCEPTORS = ("a1", "a2", "a3")


class Synod:
    """Two proposers, three acceptors; every answer is also told to the other proposer, as learner.

    Acceptors restart from their `state` before every message: what is not in it is lost.
    """

    def __init__(self, *, distinguished: tuple[bool, bool] = (True, True)) -> None:
        self.disks: dict[str, tuple[int, Proposal | None]] = dict.fromkeys(ACCEPTORS, (0, None))
        self.proposers = {
            name: Proposer(name, rank, 2, ACCEPTORS, f"v{rank + 1}", distinguished=issues)
            for rank, (name, issues) in enumerate(zip(("p1", "p2"), distinguished, strict=True))
        }
        self.network: list[Message] = []

    def propose(self, name: str) -> None:
        self.network += self.proposers[name].propose()

    def deliver(self, message: Message) -> None:
        if message.dst in self.proposers:
            self.network += self.proposers[message.dst].step(message)
            return
        acceptor = Acceptor(message.dst, self.disks[message.dst])
        for answer in acceptor.step(message):
            self.network.append(answer)
            if isinstance(answer, Accepted):
                self.network += [
                    Accepted(answer.src, other, answer.proposal)
                    for other in self.proposers
                    if other != answer.dst
                ]
        self.disks[message.dst] = acceptor.state

    def settle(self) -> None:
        while self.network:
            self.deliver(self.network.pop(0))

    @property
    def chosen(self) -> set[str]:
        return {p.chosen for p in self.proposers.values() if p.chosen is not None}


def test_one_proposer_gets_its_value_chosen() -> None:
    """§2.2: "In the absence of failure or message loss, we want a value to be chosen even if only
    one value is proposed by a single proposer"."""
    synod = Synod()
    synod.propose("p1")
    synod.settle()

    assert synod.chosen == {"v1"}
    assert all(proposer.chosen == "v1" for proposer in synod.proposers.values())


def test_a_prepare_is_answered_with_a_promise_and_the_highest_accepted() -> None:
    """§2.2, phase 1 (b): "it responds to the request with a promise not to accept any more
    proposals numbered less than n and with the highest-numbered proposal (if any) that it has
    accepted"."""
    acceptor = Acceptor("a1")
    assert acceptor.step(Prepare("p1", "a1", 2)) == [Promise("a1", "p1", 2, None)]
    acceptor.step(Accept("p1", "a1", Proposal(2, "x")))
    acceptor.step(Accept("p1", "a1", Proposal(4, "y")))

    [answer] = acceptor.step(Prepare("p2", "a1", 5))

    assert answer == Promise("a1", "p2", 5, Proposal(4, "y"))


def test_p1a() -> None:
    """§2.2, P1a: "An acceptor can accept a proposal numbered n iff it has not responded to a
    prepare request having a number greater than n"."""
    acceptor = Acceptor("a1")
    acceptor.step(Prepare("p2", "a1", 3))

    assert acceptor.step(Accept("p1", "a1", Proposal(2, "x"))) == [Reject("a1", "p1", 2, 3)]
    assert acceptor.step(Prepare("p1", "a1", 2)) == [Reject("a1", "p1", 2, 3)]
    assert acceptor.accepted is None
    same = Proposal(3, "y")
    assert acceptor.step(Accept("p2", "a1", same)) == [Accepted("a1", "p2", same)]


def test_the_promise_survives_a_restart() -> None:
    """§2.2: "an acceptor must remember this information even if it fails and then restarts"."""
    acceptor = Acceptor("a1")
    acceptor.step(Prepare("p2", "a1", 3))
    again = Acceptor("a1", acceptor.state)

    assert again.step(Accept("p1", "a1", Proposal(2, "x"))) == [Reject("a1", "p1", 2, 3)]


def test_the_value_of_the_highest_numbered_proposal_among_the_responses() -> None:
    """§2.2, phase 2 (a): "v is the value of the highest-numbered proposal among the responses, or
    is any value if the responses reported no proposals"."""
    proposer = Proposer("p1", 0, 2, ACCEPTORS, "mine")
    number = next(m.number for m in proposer.propose() if isinstance(m, Prepare))
    assert proposer.step(Promise("a1", "p1", number, Proposal(1, "low"))) == []

    asked = proposer.step(Promise("a2", "p1", number, Proposal(1, "low")))
    assert {m.proposal.value for m in asked if isinstance(m, Accept)} == {"low"}

    fresh = Proposer("p1", 0, 2, ACCEPTORS, "mine")
    number = next(m.number for m in fresh.propose() if isinstance(m, Prepare))
    fresh.step(Promise("a1", "p1", number, None))
    asked = fresh.step(Promise("a3", "p1", number, None))
    assert {m.proposal.value for m in asked if isinstance(m, Accept)} == {"mine"}


def test_one_acceptor_twice_is_no_majority() -> None:
    """§2.2: "a majority of the acceptors": a repeated promise is not another acceptor's."""
    proposer = Proposer("p1", 0, 2, ACCEPTORS, "mine")
    number = next(m.number for m in proposer.propose() if isinstance(m, Prepare))
    promise = Promise("a1", "p1", number, None)

    assert proposer.step(promise) == []
    assert proposer.step(promise) == []
    learner = Learner(ACCEPTORS)
    for _ in range(3):
        learner.step(Accepted("a1", "p1", Proposal(1, "x")))
    assert learner.chosen is None


def test_a_majority_under_different_numbers_has_chosen_nothing() -> None:
    """§2.2: "a value is chosen when a single proposal with that value has been accepted by a
    majority of the acceptors"."""
    learner = Learner(ACCEPTORS)
    learner.step(Accepted("a1", "l", Proposal(1, "x")))
    learner.step(Accepted("a2", "l", Proposal(3, "x")))
    assert learner.chosen is None

    learner.step(Accepted("a3", "l", Proposal(3, "x")))
    assert learner.chosen == "x"


def test_numbers_are_disjoint() -> None:
    """§2.5: "Different proposers choose their numbers from disjoint sets of numbers"."""
    numbers = []
    for rank in (0, 1, 2):
        proposer = Proposer("p", rank, 3, ACCEPTORS, "v")
        for _ in range(5):
            proposer.overtaken_by += 4
            numbers += [{m.number for m in proposer.propose() if isinstance(m, Prepare)}]
    assert all(len(each) == 1 for each in numbers)
    assert len(set().union(*numbers)) == len(numbers)


@pytest.mark.parametrize("rounds", [10, 100])
def test_duelling_proposers_live_lock(rounds: int) -> None:
    """§2.4: "It's easy to construct a scenario in which two proposers each keep issuing a sequence
    of proposals with increasing numbers, none of which are ever chosen"."""
    synod = Synod()
    for turn in range(rounds):
        name = ("p1", "p2")[turn % 2]
        late = [m for m in synod.network if isinstance(m, Accept)]
        synod.network = []
        synod.propose(name)
        prepares, synod.network = synod.network, []
        for prepare in prepares:
            synod.deliver(prepare)  # the other's promises are gone with this ...
        for accept in late:
            synod.deliver(accept)  # ... so its accepts, which arrive now, are rejected
        answers, synod.network = synod.network, []
        for answer in answers:
            synod.deliver(answer)

    assert synod.chosen == set()
    assert [p.attempts for p in synod.proposers.values()] == [rounds // 2, rounds // 2]
    assert all(accepted is None for _, accepted in synod.disks.values())


def test_a_distinguished_proposer_makes_progress() -> None:
    """§2.4: "To guarantee progress, a distinguished proposer must be selected as the only one to
    try issuing proposals"."""
    synod = Synod(distinguished=(True, False))
    synod.disks = dict.fromkeys(ACCEPTORS, (7, None))  # what a duel left behind
    synod.propose("p2")
    assert synod.network == []
    synod.propose("p1")
    synod.settle()
    assert synod.proposers["p1"].overtaken  # "abandon [the] proposal and try again"
    synod.propose("p1")
    synod.settle()

    assert synod.chosen == {"v1"}


def test_a_single_value_is_chosen() -> None:
    """§2.1: "Only a single value is chosen": 2,000 schedules with loss, repetition and reordering.

    (The learners assert it, and acceptors restart at every message.)
    """
    chosen_at_all = 0
    for seed in range(2_000):
        random, synod = Random(seed), Synod()
        for _ in range(60):
            if not synod.network or random.random() < 0.06:
                synod.propose(random.choice(("p1", "p2")))
                continue
            message = synod.network.pop(random.randrange(len(synod.network)))
            if random.random() < 0.1:
                continue
            if random.random() < 0.1:
                synod.network.append(message)
            synod.deliver(message)
        assert len(synod.chosen) <= 1, f"seed {seed}: {synod.chosen}"
        assert synod.chosen <= {"v1", "v2"}, f"seed {seed}: {synod.chosen}"
        chosen_at_all += bool(synod.chosen)
    assert chosen_at_all > 500
