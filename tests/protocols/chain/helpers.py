"""What the tests share: a chain in memory, its network under the test's control.

`standing(3)` is the chain n1→n2→n3 in epoch 2, with n1 as the master.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, TypeVar

from services.protocols import raft
from services.protocols.chain import Chain
from services.protocols.core import ReadGrant, Snapshot

ELECTION = 20
HEARTBEAT = 3

T = TypeVar("T")


def is_masters(message: Any) -> bool:
    return isinstance(message, raft.MESSAGES)


class Group:
    """Servers in memory: disks that keep what was persisted; nothing arrives but by `deliver`.

    Each Ready is carried out at once, in its order.
    """

    def __init__(self, size: int = 3, core: type[Chain] = Chain, **options: Any) -> None:
        self.names = tuple(f"n{i}" for i in range(1, size + 1))
        self.options = {"election_ticks": ELECTION, "heartbeat_ticks": HEARTBEAT, **options}
        self.make = core
        self.disks: dict[str, list[Any]] = {name: [] for name in self.names}
        self.cores: dict[str, Chain] = {}
        self.applied: dict[str, list[str]] = {}
        self.in_flight: list[Any] = []
        self.cut: set[tuple[str, str]] = set()
        self.reads: list[tuple[str, Any]] = []
        self.events: list[tuple[str, str]] = []
        for name in self.names:
            self.start(name)

    def start(self, name: str) -> None:
        self.applied[name] = []
        self.cores[name] = self.make(
            name,
            tuple(other for other in self.names if other != name),
            random=Random(name),
            records=list(self.disks[name]),
            **self.options,
        )
        self.carry_out(name)

    def crash(self, *names: str) -> None:
        for name in names:
            del self.cores[name]

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

    def take(self, which: Callable[[Any], bool] = lambda _: True) -> list[Any]:
        """The messages under way that are `which`, out of the network."""
        taken = [message for message in self.in_flight if which(message)]
        self.in_flight = [message for message in self.in_flight if not which(message)]
        return taken

    def deliver(self, messages: Iterable[Any]) -> None:
        for message in messages:
            if message.dst in self.cores and (message.src, message.dst) not in self.cut:
                self.cores[message.dst].step(message)
                self.carry_out(message.dst)

    def settle(self, which: Callable[[Any], bool] = lambda _: True) -> None:
        """Deliver (those that are `which`) until none is under way."""
        for _ in range(10_000):
            taken = self.take(which)
            if not taken:
                return
            self.deliver(taken)
        raise AssertionError("messages beget messages")

    def run(self, count: int) -> None:
        for _ in range(count):
            for name in list(self.cores):
                self.cores[name].tick()
                self.carry_out(name)
            self.settle()

    def until(self, condition: Callable[[], bool], most: int = 300) -> int:
        """Let time pass until it holds; how many ticks that took."""
        for count in range(most):
            if condition():
                return count
            self.run(1)
        raise AssertionError(f"not within {most} ticks: {self.chains()}")

    def isolate(self, *names: str) -> None:
        for name in names:
            for other in set(self.names) - set(names):
                self.cut |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.cut.clear()

    def propose(self, name: str, *commands: str) -> None:
        for command in commands:
            self.cores[name].propose(command.encode())
        self.carry_out(name)

    def chain(self, name: str) -> tuple[str, ...]:
        return self.cores[name].config.chain

    def chains(self) -> dict[str, Any]:
        return {name: core.config for name, core in self.cores.items()}

    def in_chain(self, *names: str) -> bool:
        """Are these, in this order, the chain that each of them is in, and synced?"""
        return all(self.chain(name) == names and self.cores[name].synced for name in names)

    def log(self, name: str) -> list[str]:
        log = self.cores[name].log
        return [entry.command.decode() for entry in log.between(log.offset, log.last_index)]

    def read(self, name: str) -> list[Any]:
        """Ask for a read; what came of it when all messages have arrived."""
        self.reads.clear()
        self.cores[name].read(1)
        self.carry_out(name)
        self.settle()
        return [answer for _, answer in self.reads]


def granted(answers: list[Any]) -> bool:
    return any(isinstance(answer, ReadGrant) for answer in answers)


def of(messages: Iterable[Any], kind: type[T], dst: str | None = None) -> list[T]:
    return [m for m in messages if isinstance(m, kind) and dst in (None, m.dst)]  # type: ignore[attr-defined]


def standing(size: int = 3, **options: Any) -> Group:
    """A chain of all, n1 its head and the master."""
    group = Group(size, **options)
    group.cores["n1"].master.campaign()
    group.carry_out("n1")
    group.until(lambda: group.in_chain(*group.names))
    assert group.cores["n1"].master.leader == "n1"
    return group
