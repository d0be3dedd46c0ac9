"""What the paper tests share: one replica with its messages written by hand, and a group in memory.

In a group of n1, n2, n3 view 2 is led by n1, view 3 by n2, view 4 by n3, view 5 by n1 again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, TypeVar

from services.protocols.core import Entry, ReadGrant, Ready, Snapshot
from services.protocols.viewstamped import Status, Viewstamped
from services.protocols.viewstamped.messages import Incarnation, ViewState

ELECTION = 20
HEARTBEAT = 3
LONGEST_TIMEOUT = 2 * ELECTION - 1

T = TypeVar("T")


class LongestTimeouts(Random):
    """Draws the longest timeout every time."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        assert stop is None, "the core draws from range(n)"
        return start - step


def names_of(size: int) -> tuple[str, ...]:
    return tuple(f"n{i}" for i in range(1, size + 1))


def entries(views: Iterable[int], first: int = 1) -> list[Entry]:
    """A log by the view of each entry. Op-number and view name the command."""
    return [Entry(i, view, f"{view}.{i}".encode()) for i, view in enumerate(views, first)]


def of(ready: Ready, kind: type[T], dst: str | None = None) -> list[T]:
    """The messages of one kind."""
    return [m for m in ready.messages if isinstance(m, kind) and dst in (None, m.dst)]


def events(ready: Ready) -> list[str]:
    return [event.name for event in ready.events]


def replica(
    node: str = "n2",
    views: Sequence[int] = (),
    *,
    view: int = 2,
    normal: int | None = None,
    lives: dict[str, int] | None = None,
    size: int = 3,
    core: type[Viewstamped] = Viewstamped,
    **options: Any,
) -> Viewstamped:
    """A replica restarted with a log of these views; `normal` is its v' (by default its view)."""
    state = ViewState(view, view if normal is None else normal, lives or {})
    made = core(
        node,
        tuple(name for name in names_of(size) if name != node),
        random=LongestTimeouts(),
        nonce=1000,
        records=[Incarnation(1), *entries(views), state],
        election_ticks=ELECTION,
        heartbeat_ticks=HEARTBEAT,
        **options,
    )
    made.ready()
    return made


class Group:
    """Replicas in memory: disks that keep what was persisted, a network under the test's control.

    Each Ready is carried out at once, in its order. Nothing arrives but by `deliver`.
    """

    def __init__(self, size: int = 3, core: type[Viewstamped] = Viewstamped, **options: Any):
        self.names = names_of(size)
        self.options = {"election_ticks": ELECTION, "heartbeat_ticks": HEARTBEAT, **options}
        self.make = core
        self.starts = 0
        self.disks: dict[str, list[Any]] = {name: [] for name in self.names}
        self.cores: dict[str, Viewstamped] = {}
        self.applied: dict[str, list[str]] = {}
        self.in_flight: list[Any] = []
        self.cut: set[tuple[str, str]] = set()
        self.reads: list[Any] = []
        self.events: list[tuple[str, str]] = []
        for name in self.names:
            self.start(name)

    def start(self, name: str) -> None:
        self.starts += 1
        self.applied[name] = []
        self.cores[name] = self.make(
            name,
            tuple(other for other in self.names if other != name),
            random=Random(self.starts),
            nonce=1000 * self.starts,
            records=list(self.disks[name]),
            **self.options,
        )
        self.carry_out(name)

    def crash(self, name: str, *, wipe: bool = False) -> None:
        del self.cores[name]
        if wipe:
            self.disks[name] = []

    def carry_out(self, name: str) -> None:
        core = self.cores[name]
        while ready := core.ready():
            for record in ready.persist:
                if isinstance(record, Snapshot):
                    self.disks[name].clear()
                self.disks[name].append(record)
            self.in_flight += [m for m in ready.messages if (m.src, m.dst) not in self.cut]
            if ready.restore is not None:
                self.applied[name] = ready.restore.data.decode().split()
            self.applied[name] += [entry.command.decode() for entry in ready.committed]
            self.reads += [(name, answer) for answer in ready.reads]
            self.events += [(name, event.name) for event in ready.events]
            core.check_invariants()

    def tick(self, *names: str, count: int = 1) -> None:
        for _ in range(count):
            for name in names or tuple(self.cores):
                self.cores[name].tick()
                self.carry_out(name)

    def take(self, which: Callable[[Any], bool] = lambda message: True) -> list[Any]:
        """The messages under way that are `which`, out of the network."""
        taken = [message for message in self.in_flight if which(message)]
        self.in_flight = [message for message in self.in_flight if not which(message)]
        return taken

    def arrive(self, messages: Iterable[Any]) -> None:
        for message in messages:
            if message.dst in self.cores and (message.src, message.dst) not in self.cut:
                self.cores[message.dst].step(message)
                self.carry_out(message.dst)

    def settle(self, which: Callable[[Any], bool] = lambda message: True) -> None:
        """Deliver (those that are `which`) until none is under way."""
        for _ in range(10_000):
            taken = self.take(which)
            if not taken:
                return
            self.arrive(taken)
        raise AssertionError("messages beget messages")

    def run(self, count: int) -> None:
        for _ in range(count):
            self.tick()
            self.settle()

    def isolate(self, name: str) -> None:
        for other in self.names:
            self.cut |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.cut.clear()

    def propose(self, name: str, *commands: str) -> None:
        for command in commands:
            self.cores[name].propose(command.encode())
        self.carry_out(name)

    def primaries(self) -> list[str]:
        return [name for name, core in self.cores.items() if core.leading]

    def statuses(self) -> dict[str, Status]:
        return {name: core.status_ for name, core in self.cores.items()}

    def read(self, name: str, *, lease: bool = False) -> bool:
        """Ask for a read and let it come to an end: was it granted?"""
        self.reads.clear()
        self.cores[name].read(1, lease=lease)
        self.carry_out(name)
        self.settle()
        return any(isinstance(answer, ReadGrant) for _, answer in self.reads)


def founded(size: int = 3, **options: Any) -> Group:
    """A group that has begun; n1 leads view 2."""
    group = Group(size, **options)
    group.settle()
    group.run(HEARTBEAT)
    assert group.primaries() == ["n1"], group.statuses()
    assert {core.view for core in group.cores.values()} == {2}
    return group
