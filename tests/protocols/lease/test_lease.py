"""The lease and its fence: sentences of the papers, and thousands of runs in a simulated world."""

from __future__ import annotations

import pytest

from services.protocols.lease import Elector, Fence, Look, Record, Write
from tests.protocols.lease.world import TERM_S, World

SEEDS = range(40)
RUN_S = 25.0


def elector(node: str = "w1") -> Elector:
    return Elector(node, term_s=1.0, drift_max=0.1)


def holder(since: float = 0.0) -> Elector:
    """One that sent its write at `since` and had its answer at once, version 7."""
    one = elector()
    assert one.next(since) == Look()
    one.saw(since, None)
    assert one.next(since) == Write(None, "w1")
    one.wrote(since, 7)
    return one


# ---------------------------------------------------------------------- sentences


def test_a_lease_is_a_contract_for_a_limited_term() -> None:
    """Leases §2: "A lease is a contract that gives its holder specified rights over property for a
    limited period of time." """
    one = holder()

    assert one.token == 7
    assert one.holds(0.999)
    assert not one.holds(1.0)


def test_the_holders_term_counts_from_when_it_asked() -> None:
    """Leases §3.1: the client's term is shortened by the time that the messages took."""
    one = elector()
    one.next(0.0)
    one.saw(0.2, None)
    assert one.next(0.3) == Write(None, "w1")
    one.wrote(0.8, 7)

    assert one.holds(1.29)
    assert not one.holds(1.3)


def test_a_contender_waits_the_term_and_the_drift_from_its_first_sight() -> None:
    """Leases §3.1: … and by the allowance for the clocks (here on the other side)."""
    one = elector()
    one.next(0.0)
    one.saw(0.05, Record(7, "w2"))
    now = 0.06
    while (action := one.next(now)) is None or isinstance(action, Look):
        if action is not None:
            one.saw(now, Record(7, "w2"))  # seen again, which renews nothing
        now += 0.01

    assert action == Write(7, "w1")
    assert now == pytest.approx(0.05 + 1.1, abs=0.011)


def test_a_renewal_seen_begins_the_wait_anew() -> None:
    """A live holder is never replaced: every renewal is a new version."""
    one = elector()
    one.next(0.0)
    for step in range(1, 500):
        now = step * 0.01
        action = one.next(now) if one._under_way is None else one._under_way
        assert not isinstance(action, Write), f"took over at {now}"
        if action is not None:
            one.saw(now, Record(7 + step // 30, "w2"))  # renewed every 0.3 s


def test_the_token_stays_while_the_lease_is_renewed() -> None:
    """A sequencer is of one acquisition (Chubby §2.4); renewing is not acquiring."""
    one = holder()
    assert one.next(0.2) is None
    assert one.next(0.34) == Write(7, "w1")
    one.wrote(0.35, 12)

    assert one.token == 7
    assert one.holds(1.33)


def test_after_the_term_the_token_is_gone_and_a_new_lease_has_a_new_one() -> None:
    """A worker that was paused past its term does not go on with the old token."""
    one = holder()
    action = one.next(5.0)

    assert one.token is None
    assert action == Write(7, "w1")
    one.wrote(5.0, 9)
    assert one.token == 9
    assert [(e.name, e.fields.get("reason")) for e in one.take_events()] == [
        ("acquire", None), ("lose", "expired"), ("acquire", None)]  # fmt: skip


def test_a_refused_renewal_ends_the_lease_though_the_own_clock_says_otherwise() -> None:
    """Its clock runs slow: somebody else holds the lease, and it learns of it by asking."""
    one = holder()
    one.next(0.4)
    one.refused(0.41, Record(8, "w2"))

    assert not one.holds(0.42)
    assert one.take_events()[-1].fields == {"token": 7, "reason": "taken"}


def test_a_lost_renewal_neither_lengthens_nor_ends_the_lease() -> None:
    """Nobody knows whether it happened: the last acknowledged one counts; look before writing."""
    one = holder()
    assert one.next(0.4) == Write(7, "w1")
    one.lost(0.6)

    assert one.holds(0.99)
    assert not one.holds(1.0)
    assert one.next(0.8) == Look()
    one.saw(0.81, Record(9, "w1"))  # it had happened
    assert one.next(0.82) == Write(9, "w1")
    one.wrote(0.83, 10)
    assert one.token == 7
    assert one.holds(1.81)


def test_the_own_name_of_an_earlier_life_is_replaced_at_once() -> None:
    """A restarted holder waits for nobody: the only one who counted on that record is gone."""
    one = elector()
    one.next(0.0)
    one.saw(0.01, Record(7, "w1"))

    assert not one.holds(0.01)
    assert one.next(0.02) == Write(7, "w1")
    one.wrote(0.03, 8)
    assert one.token == 8


def test_who_resigns_holds_no_more_and_says_what_to_clear() -> None:
    """A clean stop hands over at once instead of after a term."""
    one = holder()

    assert one.resign() == 7
    assert not one.holds(0.1)
    assert one.resign() is None


def test_the_fence_is_the_most_recent_sequencer_that_the_server_has_observed() -> None:
    """Chubby §2.4; Kleppmann: "the storage server remembers that it has already processed a write
    with a higher token number (34), and so it rejects the request with token 33." """
    fence = Fence()

    assert [fence.admit(token) for token in (33, 33, 34, 33, 34)] == [True, True, True, False, True]
    assert not Fence(newest=34).admit(33), "a restarted resource remembers"


@pytest.mark.parametrize(("term_s", "drift_max"), [(0, 0.1), (-1, 0.1), (1, -0.1)])
def test_a_term_is_positive(term_s: float, drift_max: float) -> None:
    """What would make every lease endless or empty is refused."""
    with pytest.raises(ValueError, match="must be"):
        Elector("w1", term_s=term_s, drift_max=drift_max)


# ---------------------------------------------------------------------- simulated


@pytest.mark.parametrize("seed", SEEDS)
def test_one_holder_while_the_clocks_keep_their_bound(seed: int) -> None:
    """Lost, late and reordered messages, pauses, clocks 5 % apart: at most one holds, tokens grow,
    the fence admits in order; healed, somebody holds within three terms, and keeps it."""
    world = World(seed)
    world.run(RUN_S)

    assert not world.two_holders, world.two_holders[0]
    tokens = [token for _, _, token in world.acquired]
    assert len(tokens) > 2, "hardly anything happened"
    assert tokens == sorted(set(tokens))
    assert world.admitted == sorted(world.admitted)
    world.heal()
    world.run(RUN_S + 8 * TERM_S)  # what was slow arrives, who was paused wakes up
    before = len(world.acquired)
    world.run(RUN_S + 20 * TERM_S)
    assert world.holders(), "nobody holds the lease"
    assert len(world.acquired) == before, "a live holder was replaced"


def worlds(**settings: object) -> list[World]:
    made = [World(seed, **settings) for seed in SEEDS]  # type: ignore[arg-type]
    for world in made:
        world.run(RUN_S)
    return made


class CountsFromTheAnswer(Elector):
    """The bug that the "from when it was sent" is about."""

    def wrote(self, now: float, version: int) -> None:
        self._sent_at = now
        super().wrote(now, version)


def test_counting_from_the_answer_makes_two_holders() -> None:
    """The simulation can fail: a term that begins with the answer overlaps the next one."""
    assert any(world.two_holders for world in worlds(elector=CountsFromTheAnswer))


def test_a_clock_that_runs_slow_makes_two_holders_and_the_fence_holds() -> None:
    """*One holder* trusts the clocks' rates. *Tokens grow* and *Fence* trust nothing."""
    made = worlds(rates=(0.3, 1.0), pauses=False, loss=0.3)

    assert any(world.two_holders for world in made)
    assert any(world.refused for world in made)
    assert all(world.admitted == sorted(world.admitted) for world in made)


@pytest.mark.parametrize("rates", [(1.0, 1.0), (0.3, 1.0)], ids=["pause", "slow clock"])
def test_without_the_fence_a_former_holder_acts_after_the_new_one(
    rates: tuple[float, float],
) -> None:
    """The control: the same worlds without the fence take a lower token after a greater one."""
    made = worlds(rates=rates, fenced=False)

    assert any(world.admitted != sorted(world.admitted) for world in made)
