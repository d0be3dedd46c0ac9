"""What the paper tests share: one core with its messages written by hand, and a few in memory.

A node under test alone is n1. Its election timeout is always the longest, 2·ELECTION − 1 ticks, so
a test knows when it campaigns; tests of randomness pass a `random.Random`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from services.protocols.core import Entry, Event, ReadGrant, ReadRefusal, Ready, Snapshot
from services.protocols.raft import Limits, Raft
from services.protocols.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    HardState,
    InstallSnapshot,
    RequestPreVote,
    RequestPreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)

ELECTION = 20
HEARTBEAT = 3
LONGEST_TIMEOUT = 2 * ELECTION - 1

T = TypeVar("T")


class LongestTimeouts(Random):
    """Draws the longest election timeout every time."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        assert stop is None, "the core draws from range(n)"
        return start - step


def entries(terms: Iterable[int], first: int = 1) -> list[Entry]:
    """A log as the paper draws it: a term per position. Index and term name the command."""
    return [Entry(i, term, f"{term}.{i}".encode()) for i, term in enumerate(terms, first)]


def of(ready: Ready, kind: type[T], dst: str | None = None) -> list[T]:
    """The messages of one kind."""
    return [m for m in ready.messages if isinstance(m, kind) and dst in (None, m.dst)]


def events(ready: Ready) -> list[str]:
    return [event.name for event in ready.events]


def peers_of(size: int) -> tuple[str, ...]:
    return tuple(f"n{i}" for i in range(2, size + 1))


# ---- one node, its messages written by hand -----------------------------------------------------


def follower(
    terms: Sequence[int] = (),
    *,
    term: int | None = None,
    vote: str | None = None,
    committed: int = 0,
    leader: str | None = None,
    size: int = 3,
    **options: Any,
) -> Raft:
    """n1 with a log of these terms, restarted long enough ago to vote again, output taken away.

    `committed` is learnt from a heartbeat, so with it there is a leader (n2 if not named).
    """
    term = max([0, *terms]) if term is None else term
    core = Raft(
        "n1",
        peers_of(size),
        random=options.pop("random", LongestTimeouts()),
        records=[HardState(term, vote), *entries(terms)] if term else (),
        election_ticks=ELECTION,
        heartbeat_ticks=HEARTBEAT,
        **options,
    )
    tick(core, ELECTION)
    if committed or leader:
        last = (len(terms), terms[-1] if terms else 0)
        core.step(append_entries(leader or "n2", term, prev=last, commit=committed))
    core.ready()
    return core


def tick(core: Raft, count: int) -> None:
    for _ in range(count):
        core.tick()


def tick_until_campaign(core: Raft) -> Ready:
    """Ticks until n1 asks for pre-votes; that Ready."""
    for _ in range(2 * LONGEST_TIMEOUT):
        core.tick()
        ready = core.ready()
        if of(ready, RequestPreVote):
            return ready
    raise AssertionError(f"no campaign: {core.status()}")


def campaign(core: Raft) -> Ready:
    """Through the pre-vote with everybody's grant; the Ready of the candidate."""
    asked = of(tick_until_campaign(core), RequestPreVote)
    for request in asked:
        core.step(RequestPreVoteResponse(request.dst, core.node, request.term, True))
    ready = core.ready()
    assert of(ready, RequestVote), core.status()
    return ready


def elect(core: Raft) -> Ready:
    """n1 wins with everybody's vote; the first Ready of the leader."""
    for request in of(campaign(core), RequestVote):
        core.step(vote_from(request.dst, request.term))
    ready = core.ready()
    assert core.status()["role"] == "leader", core.status()
    return ready


def leader(terms: Sequence[int] = (), *, term: int | None = None, **options: Any) -> Raft:
    """n1, just elected: its log ends with the no-op of its term, which nobody has answered."""
    core = follower(terms, term=term, **options)
    elect(core)
    return core


def established(terms: Sequence[int] = (), **options: Any) -> Raft:
    """n1 leads, all followers have its log, everything is committed and handed over."""
    core = leader(terms, **options)
    accept(core, *core.peers)
    core.ready()
    assert core.status()["commit_index"] == core.status()["last_index"]
    return core


def vote_from(src: str, term: int, *, granted: bool = True) -> RequestVoteResponse:
    return RequestVoteResponse(src, "n1", term, granted)


def append_entries(
    src: str,
    term: int,
    *,
    prev: tuple[int, int] = (0, 0),
    new: Sequence[int] = (),
    commit: int = 0,
    round: int = 1,  # noqa: A002 - the message's own word
) -> AppendEntries:
    """AppendEntries to n1: `prev` is (index, term), `new` the terms of the entries after it."""
    return AppendEntries(src, "n1", term, *prev, entries(new, prev[0] + 1), commit, round)


def accept(
    core: Raft,
    *sources: str,
    match: int | None = None,
    round: int | None = None,  # noqa: A002
) -> None:
    """These followers answer success, up to the leader's last index and newest round or as told."""
    status = core.status()
    match = status["last_index"] if match is None else match
    round = core.round if round is None else round  # noqa: A001
    for src in sources:
        core.step(
            AppendEntriesResponse(src, core.node, status["term"], True, match, 0, 0, 0, round)
        )


def request_vote(
    src: str, term: int, last: tuple[int, int] = (0, 0), *, transfer: bool = False
) -> RequestVote:
    """RequestVote to n1: `last` is the (index, term) of the candidate's last entry."""
    return RequestVote(src, "n1", term, *last, transfer)


def answer_to_vote(core: Raft, request: RequestVote) -> RequestVoteResponse:
    core.step(request)
    (response,) = of(core.ready(), RequestVoteResponse)
    return response


def answer_to_append(core: Raft, message: AppendEntries) -> AppendEntriesResponse:
    core.step(message)
    (response,) = of(core.ready(), AppendEntriesResponse)
    return response


def log_terms(core: Raft) -> list[int]:
    """The terms of the log. White box: messages would show it only a part at a time."""
    log = core.log
    return [entry.term for entry in log.between(log.offset, log.last_index)]


def chunk(
    data: bytes,
    *,
    offset: int = 0,
    done: bool = True,
    last: tuple[int, int] = (5, 2),
    **fields: Any,
) -> InstallSnapshot:
    """InstallSnapshot from n2, leader of term 3, to n1."""
    message = InstallSnapshot("n2", "n1", 3, *last, offset, data, done)
    return replace(message, **fields)


def replayed(records: Iterable[Any], size: int = 3, **options: Any) -> Raft:
    """n1 as it comes back from these records."""
    return Raft("n1", peers_of(size), random=LongestTimeouts(), records=list(records), **options)


# ---- several nodes in memory --------------------------------------------------------------------


class Cluster:
    """Cores, their disks, and a network that the test holds in its hand.

    Nothing travels before `deliver`; `cut` holds the links (src, dst) that lose everything.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        logs: Mapping[str, Sequence[int]] | None = None,
        term: int | None = None,
        random: Callable[[str], Random] = lambda _: LongestTimeouts(),
        limits: Limits | None = None,
    ) -> None:
        self.names = [f"n{i}" for i in range(1, size + 1)]
        self.random, self.limits = random, limits
        self.disks: dict[str, list[Any]] = {name: [] for name in self.names}
        for name, terms in (logs or {}).items():
            self.disks[name] = [HardState(term or max(terms), None), *entries(terms)]
        self.committed: dict[str, list[Entry]] = {}  # all that was handed over
        self.applied: dict[str, list[Entry]] = {}  # of these what has a command
        self.reads: dict[str, list[ReadGrant | ReadRefusal]] = {name: [] for name in self.names}
        self.events: list[tuple[str, Event]] = []
        self.network: list[Any] = []
        self.sent: list[Any] = []  # every message ever sent
        self.cut: set[tuple[str, str]] = set()
        self.cores: dict[str, Raft] = {}
        for name in self.names:
            self.start(name)

    def start(self, name: str) -> None:
        """From its disk; what it applied is forgotten with the crash."""
        self.committed[name], self.applied[name] = [], []
        self.cores[name] = Raft(
            name,
            tuple(other for other in self.names if other != name),
            random=self.random(name),
            records=self.disks[name],
            election_ticks=ELECTION,
            heartbeat_ticks=HEARTBEAT,
            limits=self.limits,
        )

    def crash(self, name: str) -> None:
        """What it had not handed over is lost, and so is what is on its way to or from it."""
        del self.cores[name]
        self.network = [m for m in self.network if name not in (m.src, m.dst)]

    def isolate(self, *names: str) -> None:
        """No message passes between these and the others."""
        for a in names:
            for b in self.names:
                if b not in names:
                    self.cut |= {(a, b), (b, a)}

    def heal(self) -> None:
        self.cut.clear()

    def collect(self) -> None:
        """Carry out what every core hands over; its messages are then on the network."""
        for name, core in self.cores.items():
            ready = core.ready()
            if any(isinstance(record, Snapshot) for record in ready.persist):
                self.disks[name].clear()
            self.disks[name] += ready.persist
            self.committed[name] += ready.committed
            self.applied[name] += [entry for entry in ready.committed if entry.command]
            self.reads[name] += ready.reads
            self.events += [(name, event) for event in ready.events]
            self.network += ready.messages
            self.sent += ready.messages

    def deliver(self, only: Callable[[Any], bool] = lambda _: True) -> None:
        """Until nothing (of that sort) is on its way. What is not of that sort stays there."""
        for _ in range(1000):
            self.collect()
            now = [m for m in self.network if only(m)]
            if not now:
                return
            self.network = [m for m in self.network if not only(m)]
            for message in now:
                core = self.cores.get(message.dst)
                if core is not None and (message.src, message.dst) not in self.cut:
                    core.step(message)
        raise AssertionError("the cores never come to rest")

    def lose(self) -> None:
        """Everything that is on its way is lost."""
        self.collect()
        self.network.clear()

    def tick(self, count: int = 1) -> None:
        """Every node's clock, messages arriving in between."""
        for _ in range(count):
            for core in self.cores.values():
                core.tick()
            self.deliver()

    def ask_for_votes(self, name: str) -> None:
        """`name` runs into its timeout; the others too have heard no leader for long enough.

        Its pre-vote goes through; its RequestVotes are left on the network. A first campaign may
        only teach it the others' term, so it may take another one.
        """
        for _ in range(3):
            for other, core in self.cores.items():
                if other != name:
                    tick(core, ELECTION)
            self.lose()
            core = self.cores[name]
            for _ in range(LONGEST_TIMEOUT):
                core.tick()
                self.collect()
                if any(isinstance(m, RequestPreVote) for m in self.network):
                    break
            self.deliver(lambda m: isinstance(m, RequestPreVote | RequestPreVoteResponse))
            if core.status()["role"] == "candidate" and not core.status()["pre_vote"]:
                return

    def elect(self, name: str) -> None:
        """`name` is elected; nothing but votes has travelled."""
        self.ask_for_votes(name)
        self.deliver(lambda m: isinstance(m, RequestVote | RequestVoteResponse))
        assert self.cores[name].status()["role"] == "leader", self.cores[name].status()

    def log(self, name: str) -> list[int]:
        return log_terms(self.cores[name])

    def leaders(self) -> list[str]:
        return [name for name, core in self.cores.items() if core.status()["role"] == "leader"]
