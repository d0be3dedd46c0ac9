"""Replicas whose messages a test delivers by hand."""

from __future__ import annotations

from random import Random
from typing import Any

from services.protocols.causal import Causal, Level, Reply, Session


class Replicas:
    """n1, n2, … `held`: what was sent and is still on its way, in order."""

    def __init__(self, count: int = 3, **how: Any) -> None:
        self.names = [f"n{number}" for number in range(1, count + 1)]
        self.how = {"anti_entropy_ticks": 0, **how}
        self.starts = 0
        self.disks: dict[str, list[Any]] = {name: [] for name in self.names}
        self.cores = {name: self._core(name) for name in self.names}
        self.held: list[Any] = []
        self.replies: dict[int, Reply] = {}
        self._requests = 0

    def _core(self, name: str) -> Causal:
        peers = tuple(other for other in self.names if other != name)
        self.starts += 1  # chance is never the same at two starts
        chance = Random(self.starts)
        return Causal(name, peers, random=chance, records=list(self.disks[name]), **self.how)

    def restart(self, name: str) -> None:
        """It has what is on its disk, and nothing else."""
        self.cores[name] = self._core(name)

    def wipe(self, name: str) -> None:
        """It comes back under its name, with an empty disk; what it had sent is on its way."""
        self.disks[name] = []
        self.restart(name)

    def carry_out(self) -> None:
        """Persist, send, reply, of every core."""
        for name, core in self.cores.items():
            ready = core.ready()
            self.disks[name] += ready.persist
            self.held += ready.messages
            self.replies |= {reply.request: reply for reply in ready.replies}
            core.check_invariants()

    def write(
        self, node: str, key: str, value: str, session: Session, level: Level = "causal"
    ) -> int:
        """Its number; `replies` has its end, once there is one."""
        self._requests += 1
        self.cores[node].write(self._requests, key, value.encode(), session=session, level=level)
        self.carry_out()
        return self._requests

    def read(self, node: str, key: str, session: Session, level: Level = "causal") -> int:
        """As `write`."""
        self._requests += 1
        self.cores[node].read(self._requests, key, session=session, level=level)
        self.carry_out()
        return self._requests

    def deliver(self, src: str | None = None, dst: str | None = None) -> int:
        """What is on its way, from and to whom; how many."""
        ours = [m for m in self.held if src in (None, m.src) and dst in (None, m.dst)]
        self.held = [message for message in self.held if message not in ours]
        for message in ours:
            self.cores[message.dst].step(message)
            self.carry_out()
        return len(ours)

    def lose(self, dst: str) -> None:
        """What is on its way to `dst` is lost."""
        self.held = [message for message in self.held if message.dst != dst]

    def settle(self) -> None:
        """Until nothing is on its way."""
        while self.deliver():
            pass

    def tick(self, count: int) -> None:
        for _ in range(count):
            for core in self.cores.values():
                core.tick()
            self.carry_out()

    def value(self, node: str, key: str) -> str | None:
        """What a reader is shown there who has seen nothing."""
        request = self.read(node, key, Session(), "eventual")
        return self.shown(request)

    def shown(self, request: int) -> str | None:
        write = self.replies[request].write
        return None if write is None or write.value is None else write.value.decode()
