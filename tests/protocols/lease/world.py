"""A world for electors: true time, clocks of any rate, a network, pauses, a register, a resource.

Everything is drawn from one seed. After every step the invariants of the package are checked
against true time, which no elector knows.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from random import Random

from services.protocols.lease import Elector, Fence, Look, Record, Write

TERM_S, DRIFT_MAX, TICK_S, TIMEOUT_S = 1.0, 0.05, 0.02, 0.25


class Worker:
    """A process with a clock of its own, that elects and acts."""

    def __init__(self, elector: Elector, rate: float, offset: float) -> None:
        self.elector = elector
        self.rate, self.offset = rate, offset
        self.paused_until = 0.0
        self.asked = 0  # numbers its questions: an answer after its timeout is no answer

    def clock(self, true: float) -> float:
        return self.offset + true * self.rate


class World:
    """`workers` electors for `run_s` true seconds; see the module.

    Attributes:
        two_holders: (true time, names) whenever more than one held the lease.
        acquired: (true time, name, token) in the order of the acquisitions.
        admitted: tokens in the order in which the resource took them.
        refused: how many acts the fence refused.
    """

    def __init__(
        self,
        seed: int,
        *,
        elector: type[Elector] = Elector,
        workers: int = 3,
        rates: tuple[float, float] = (1.0, 1.0 + DRIFT_MAX),
        pauses: bool = True,
        loss: float = 0.1,
        fenced: bool = True,
    ) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.healed = False
        self.loss, self.pauses, self.fenced = loss, pauses, fenced
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.steps = 0
        self.register: Record | None = None
        self.versions = 0
        self.fence = Fence()
        self.workers = {
            f"w{number}": Worker(
                elector(f"w{number}", term_s=TERM_S, drift_max=DRIFT_MAX),
                self.random.uniform(*rates),
                self.random.uniform(-1000, 1000),
            )
            for number in range(1, workers + 1)
        }
        self.two_holders: list[tuple[float, list[str]]] = []
        self.acquired: list[tuple[float, str, int]] = []
        self.admitted: list[int] = []
        self.refused = 0
        for name in self.workers:
            self.after(self.random.uniform(0, TICK_S), partial(self.tick, name))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self.steps += 1
        heapq.heappush(self.queue, (self.now + delay, self.steps, action))

    def run(self, run_s: float) -> None:
        while self.queue and self.queue[0][0] <= run_s:
            self.now, _, action = heapq.heappop(self.queue)
            action()
            self.check()

    def heal(self) -> None:
        """No more losses or pauses."""
        self.healed = True

    def holders(self) -> list[str]:
        return [
            name
            for name, worker in self.workers.items()
            if worker.elector.holds(worker.clock(self.now))
        ]

    def check(self) -> None:
        holders = self.holders()
        if len(holders) > 1:
            self.two_holders.append((self.now, holders))
        for worker in self.workers.values():
            worker.elector.check_invariants()

    # ------------------------------------------------------------------ a worker

    def tick(self, name: str) -> None:
        worker = self.workers[name]
        if self.wait_for(worker, lambda: self.tick(name)):
            return
        if self.pauses and not self.healed and self.random.random() < 0.002:
            worker.paused_until = self.now + self.random.uniform(0, 3 * TERM_S)
        action = worker.elector.next(worker.clock(self.now))
        self.tell(name)
        if action is not None:
            self.ask(name, action)
        if worker.elector.holds(worker.clock(self.now)) and self.random.random() < 0.3:
            token = worker.elector.token
            assert token is not None
            # It has looked at its clock; now it works, sends, and may be paused in between.
            self.after(0.01, lambda: self.act(worker, token))
        self.after(TICK_S, lambda: self.tick(name))

    def act(self, worker: Worker, token: int) -> None:
        if not self.wait_for(worker, lambda: self.act(worker, token)):
            self.after(self.delay(), lambda: self.arrive(token))

    def arrive(self, token: int) -> None:
        if self.fence.admit(token) or not self.fenced:
            self.admitted.append(token)
        else:
            self.refused += 1

    def wait_for(self, worker: Worker, action: Callable[[], None]) -> bool:
        """If it is paused: do it when it wakes up."""
        if self.now >= worker.paused_until:
            return False
        self.after(worker.paused_until - self.now, action)
        return True

    def tell(self, name: str) -> None:
        for event in self.workers[name].elector.take_events():
            if event.name == "acquire":
                self.acquired.append((self.now, name, event.fields["token"]))

    # ------------------------------------------------------------------ the register

    def delay(self) -> float:
        slow = not self.healed and self.random.random() < 0.1
        return self.random.uniform(0, 2 * TERM_S if slow else 0.01)

    def gone(self) -> bool:
        return not self.healed and self.random.random() < self.loss

    def ask(self, name: str, action: Look | Write) -> None:
        worker = self.workers[name]
        worker.asked += 1
        number = worker.asked
        if not self.gone():
            self.after(self.delay(), lambda: self.serve(name, number, action))
        self.after(TIMEOUT_S, lambda: self.time_out(name, number))

    def time_out(self, name: str, number: int) -> None:
        worker = self.workers[name]
        if worker.asked == number and not self.wait_for(
            worker, lambda: self.time_out(name, number)
        ):
            worker.asked += 1
            worker.elector.lost(worker.clock(self.now))

    def serve(self, name: str, number: int, action: Look | Write) -> None:
        """Compare and set, at one instant; the answer may be lost, or come late."""
        written = False
        if isinstance(action, Write):
            at = None if self.register is None else self.register.version
            if at == action.version:
                self.versions += self.random.randint(1, 3)
                self.register, written = Record(self.versions, action.node), True
        register = self.register
        if not self.gone():
            self.after(self.delay(), lambda: self.answer(name, number, action, written, register))

    def answer(
        self, name: str, number: int, action: Look | Write, written: bool, register: Record | None
    ) -> None:
        worker = self.workers[name]
        again = (name, number, action, written, register)
        if worker.asked != number or self.wait_for(worker, lambda: self.answer(*again)):
            return
        worker.asked += 1
        now, elector = worker.clock(self.now), worker.elector
        if isinstance(action, Look):
            elector.saw(now, register)
        elif written:
            assert register is not None
            elector.wrote(now, register.version)
        else:
            elector.refused(now, register)
        self.tell(name)
