"""What the paper tests share: one core with its messages written by hand, and a few in memory.

A node under test alone is n1. It waits for a leader the longest time, 2·ELECTION − 1 ticks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from services.protocols.core import Entry, Event, ReadGrant, ReadRefusal, Ready, Snapshot
from services.protocols.zab import Limits, Zab
from services.protocols.zab.messages import (
    AckEpoch,
    AckNewLeader,
    CEpoch,
    Epochs,
    NewEpoch,
    NewLeader,
    Notification,
    Zxid,
)
from tests.protocols.raft.helpers import LongestTimeouts, events, of, peers_of

__all__ = ["LongestTimeouts", "events", "of", "peers_of"]

ELECTION = 20
HEARTBEAT = 3
LONGEST_PATIENCE = 2 * ELECTION - 1

T = TypeVar("T")


def entries(epochs: Iterable[int], first: int = 1) -> list[Entry]:
    """A history: an epoch per position. Epoch and counter name the command."""
    return [Entry(i, epoch, f"{epoch}.{i}".encode()) for i, epoch in enumerate(epochs, first)]


def node(
    epochs: Sequence[int] = (),
    *,
    accepted: int | None = None,
    current: int | None = None,
    size: int = 3,
    name: str = "n1",
    **options: Any,
) -> Zab:
    """A node with a history of these epochs, just restarted, output taken away."""
    last = max([0, *epochs])
    current = last if current is None else current
    accepted = max(current, last) if accepted is None else accepted
    core = Zab(
        name,
        tuple(peer for peer in ("n1", *peers_of(size)) if peer != name),
        random=options.pop("random", LongestTimeouts()),
        records=[Epochs(accepted, current), *entries(epochs)] if accepted else (),
        election_ticks=ELECTION,
        heartbeat_ticks=HEARTBEAT,
        **options,
    )
    core.ready()
    return core


def looking(
    src: str,
    *,
    vote: str | None = None,
    round: int = 1,  # noqa: A002 - the message's own word
    stands: bool = True,
    current: int = 0,
    last: tuple[int, int] = (0, 0),
    state: str = "looking",
) -> Notification:
    """A notification to n1; `last` is a zxid as (epoch, counter). It votes for itself."""
    return Notification(src, "n1", round, state, vote or src, stands, current, Zxid(*last))


def following(epochs: Sequence[int] = (), *, leader: str = "n2", **options: Any) -> Zab:
    """n1 has just been told by the election to follow; phase 1."""
    core = node(epochs, **options)
    core.follow(leader)
    core.ready()
    return core


def synchronising(epochs: Sequence[int] = (), *, epoch: int, **options: Any) -> Zab:
    """n1 has promised `epoch` to n2; phase 2."""
    core = following(epochs, **options)
    core.step(NewEpoch("n2", "n1", epoch))
    assert of(core.ready(), AckEpoch)
    return core


def accepted(epochs: Sequence[int] = (), *, epoch: int, **options: Any) -> Zab:
    """n1 has acknowledged NEWLEADER of n2 with the history it had."""
    core = synchronising(epochs, epoch=epoch, **options)
    core.step(NewLeader("n2", "n1", epoch, core.history.last))
    assert of(core.ready(), AckNewLeader)
    return core


def prospective(epochs: Sequence[int] = (), **options: Any) -> Zab:
    """n1 has just been elected; phase 1, nobody has joined it."""
    core = node(epochs, **options)
    core.lead()
    core.ready()
    return core


def joins(core: Zab, *sources: str, promised: int | None = None) -> Ready:
    """CEPOCH from these."""
    for src in sources:
        core.step(CEpoch(src, core.node, core.accepted_epoch if promised is None else promised))
    return core.ready()


def ack_epoch(
    core: Zab,
    src: str,
    *,
    current: int | None = None,
    ends: Sequence[tuple[int, int]] | None = None,
    promised: bool = True,
) -> Ready:
    """ACK-E from `src`; if not said otherwise, it has what the leader has."""
    history = core.history.ends() if ends is None else [Zxid(*end) for end in ends]
    current = core.current_epoch if current is None else current
    core.step(AckEpoch(src, core.node, core.accepted_epoch, promised, current, history))
    return core.ready()


def ack_leader(core: Zab, *sources: str, counter: int | None = None) -> Ready:
    """ACK-LD from these, for all that the leader has."""
    counter = core.history.last_index if counter is None else counter
    for src in sources:
        core.step(AckNewLeader(src, core.node, core.accepted_epoch, counter))
    return core.ready()


def established(epochs: Sequence[int] = (), *, size: int = 3, **options: Any) -> Zab:
    """n1 leads in phase 3, and every follower has its history."""
    core = prospective(epochs, size=size, **options)
    joins(core, *core.peers)
    for peer in core.peers:
        ack_epoch(core, peer)
    ack_leader(core, *core.peers)
    assert core.leads(), core.status()
    return core


def tick(core: Zab, count: int) -> None:
    for _ in range(count):
        core.tick()


def epochs_of(core: Zab) -> list[int]:
    """The epochs of its history."""
    history = core.history
    return [e.term for e in history.between(history.offset, history.last_index)]


class Ensemble:
    """Cores, their disks, and a network that the test holds in its hand.

    `cut` holds the links (src, dst) that lose everything.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        histories: Mapping[str, Sequence[int]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.names = [f"n{i}" for i in range(1, size + 1)]
        self.limits = limits
        self.disks: dict[str, list[Any]] = {name: [] for name in self.names}
        for name, epochs in (histories or {}).items():
            self.disks[name] = [Epochs(max(epochs), max(epochs)), *entries(epochs)]
        self.applied: dict[str, list[Entry]] = {}
        self.reads: dict[str, list[ReadGrant | ReadRefusal]] = {name: [] for name in self.names}
        self.events: list[tuple[str, Event]] = []
        self.network: list[Any] = []
        self.cut: set[tuple[str, str]] = set()
        self.cores: dict[str, Zab] = {}
        for name in self.names:
            self.start(name)

    def start(self, name: str) -> None:
        """From its disk; what it applied is forgotten with the crash."""
        self.applied[name] = []
        self.cores[name] = Zab(
            name,
            tuple(other for other in self.names if other != name),
            random=Random(name),
            records=self.disks[name],
            election_ticks=ELECTION,
            heartbeat_ticks=HEARTBEAT,
            limits=self.limits,
        )

    def crash(self, name: str) -> None:
        """What is on its way to or from it is lost."""
        del self.cores[name]
        self.network = [m for m in self.network if name not in (m.src, m.dst)]

    def isolate(self, *names: str) -> None:
        for a in names:
            for b in self.names:
                if b not in names:
                    self.cut |= {(a, b), (b, a)}

    def collect(self) -> None:
        """Carry out what every core hands over; its messages are then on the network."""
        for name, core in self.cores.items():
            ready = core.ready()
            if any(isinstance(record, Snapshot) for record in ready.persist):
                self.disks[name].clear()
            self.disks[name] += ready.persist
            self.applied[name] += ready.committed
            self.reads[name] += ready.reads
            self.events += [(name, event) for event in ready.events]
            self.network += [m for m in ready.messages if (m.src, m.dst) not in self.cut]

    def deliver(self) -> None:
        """Until nothing is on its way."""
        for _ in range(1000):
            self.collect()
            now, self.network = self.network, []
            if not now:
                return
            for message in now:
                if message.dst in self.cores and (message.src, message.dst) not in self.cut:
                    self.cores[message.dst].step(message)
        raise AssertionError("the cores never come to rest")

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            for core in self.cores.values():
                core.tick()
            self.deliver()

    def until(self, condition: Callable[[], Any], ticks: int = 20 * ELECTION) -> Any:
        for _ in range(ticks):
            if value := condition():
                return value
            self.tick()
        raise AssertionError(
            f"not within {ticks} ticks: {[c.status() for c in self.cores.values()]}"
        )

    def leader(self) -> str:
        """The one that all running nodes agree on, once they do."""

        def agreed() -> str | None:
            leaders = {core.leader() for core in self.cores.values()}
            (leader,) = leaders if len(leaders) == 1 else (None,)
            return leader if leader in self.cores else None

        return str(self.until(agreed))
