"""What the tests of the papers' sentences share: n1 alone, its messages written by hand.

Its timeout is always the longest, 2·ELECTION − 1 ticks at first. A ballot is written (round, rank):
`ballot(2, 3)` is round 2 of n3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from services.protocols.core import Entry, Ready
from services.protocols.paxos import Paxos
from services.protocols.paxos.ballots import Ballot, Ballots
from services.protocols.paxos.messages import P0a, P0b, P1a, P1b, P2a, P2b, PValue
from tests.protocols.raft.helpers import LongestTimeouts

ELECTION = 20
HEARTBEAT = 3

T = TypeVar("T")


def members(size: int) -> tuple[str, ...]:
    return tuple(f"n{i + 1}" for i in range(size))


def ballot(round: int, leader: int, size: int = 3) -> int:  # noqa: A002 - the paper's word
    return Ballots(members(size)).number(Ballot(round, f"n{leader}"))


def node(size: int = 3, records: Iterable[Any] = (), **options: Any) -> Paxos:
    """n1, its output taken away."""
    core = Paxos(
        "n1",
        members(size)[1:],
        random=LongestTimeouts(),
        records=list(records),
        election_ticks=ELECTION,
        heartbeat_ticks=HEARTBEAT,
        **options,
    )
    core.ready()
    return core


def of(ready: Ready, kind: type[T], dst: str | None = None) -> list[T]:
    """The messages of one kind."""
    return [m for m in ready.messages if isinstance(m, kind) and dst in (None, m.dst)]


def after(core: Paxos, message: Any) -> Ready:
    """What one message leads to."""
    core.step(message)
    core.check_invariants()
    return core.ready()


def tick(core: Paxos, count: int) -> None:
    for _ in range(count):
        core.tick()


def scout(core: Paxos) -> Ready:
    """n1 campaigns, everybody would promise: the Ready with its p1a."""
    for _ in range(4 * ELECTION):
        core.tick()
        asked = of(core.ready(), P0a)
        if asked:
            for request in asked:
                core.step(P0b(request.dst, "n1", request.ballot, True))
            ready = core.ready()
            assert of(ready, P1a), core.status()
            return ready
    raise AssertionError(f"no campaign: {core.status()}")


def promise(core: Paxos, src: str, *, decided: int = 0, accepted: Sequence[PValue] = ()) -> Ready:
    """`src` promises the ballot of n1."""
    return after(core, P1b(src, "n1", core.ballot, decided, list(accepted)))


def leader(size: int = 3, **options: Any) -> Paxos:
    """n1 is active, nothing was accepted before; its output taken away."""
    core = node(size, **options)
    scout(core)
    for peer in core.peers:
        promise(core, peer)
    assert core.status()["role"] == "leader", core.status()
    return core


def accept(
    core: Paxos,
    src: str,
    *slots: int,
    ballot: int | None = None,
    round: int = 0,  # noqa: A002 - the message's own word
) -> Ready:
    """`src` has accepted these slots in the ballot of n1, or as told."""
    runs = [(slot, slot) for slot in slots]
    return after(core, P2b(src, "n1", core.ballot if ballot is None else ballot, runs, round))


def p2a(src: int, number: int, *entries: Entry, decided: int = 0, size: int = 3) -> P2a:
    """The p2a of the leader of round `number`, n<src>, to n1."""
    return P2a(f"n{src}", "n1", ballot(number, src, size), list(entries), decided, 1)


def value(slot: int, term: int, command: bytes = b"") -> Entry:
    return Entry(slot, term, command or b"c%d" % slot)
