"""Consumers of one group over a simulated broker and sink, killed and rebalanced at any step.

What the simulation may do to a run: kill a consumer with effects and commits on their way (each of
which may still arrive, or never), take partitions away from one that lives on and does not know it
(a zombie: its effects still arrive, its commits are refused), lose the answer to an effect that
took place, refuse an effect, fail a commit. All of it is drawn from one seed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

from services.protocols.delivery import (
    Batch,
    Commit,
    DeliveryCore,
    Guarantee,
    Outcome,
    Ready,
    Record,
)

PARTITIONS = tuple(f"orders/{number}" for number in range(4))
KEYS = 12


@dataclass
class Message:
    id: str
    key: str | None
    number: int  # of its key, from 0
    poison: bool


@dataclass
class Sink:
    """Where effects take place. `atomic`: it knows ids, and an effect with its id is one step."""

    atomic: bool
    applied: list[str] = field(default_factory=list)
    order: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    known: set[str] = field(default_factory=set)

    def apply(self, message: Message) -> Outcome:
        if message.poison:
            return "rejected"
        if self.atomic and message.id in self.known:
            return "duplicate"
        self.known.add(message.id)
        self.applied.append(message.id)
        if message.key is not None:
            self.order[message.key].append(message.number)
        return "applied"


class Member:
    """One life of a consumer process, driven by hand: everything it has asked for is pending."""

    def __init__(self, name: str, core: DeliveryCore) -> None:
        self.name = name
        self.core = core
        self.generation = -1
        self.fetched: dict[str, int] = {}
        self.pending: list[tuple[str, Any]] = []
        self.paused = False

    def ask(self, ready: Ready) -> None:
        """What the core wants done is on its way. A commit carries the generation it is made in."""
        if ready.pause is not None:
            self.paused = ready.pause
        self.pending += [("commit", (self.generation, each)) for each in ready.commits]
        self.pending += [("batch", (self.generation, each)) for each in ready.batches]
        self.pending += [("dead letter", each) for each in ready.dead_letters]


class Simulation:
    """`strikes` kills and rebalances among `members` consumers; then peace until all is done."""

    def __init__(
        self,
        seed: int,
        guarantee: Guarantee,
        *,
        strikes: int,
        members: int = 3,
        core: type[DeliveryCore] = DeliveryCore,
    ) -> None:
        self.random = Random(seed)
        self.guarantee: Guarantee = guarantee
        self.strikes_left = strikes
        self.strikes: Counter[str] = Counter()
        self.make = core
        self.now = 0.0
        self.logs: dict[str, list[Message]] = {partition: [] for partition in PARTITIONS}
        self.committed = dict.fromkeys(PARTITIONS, 0)
        self.sink = Sink(atomic=guarantee in ("effectively_once", "transactional"))
        self.dead: Counter[str] = Counter()
        self.messages: list[Message] = []
        self._of_key: Counter[str] = Counter()
        self.generation = 0
        self.owner: dict[str, Member] = {}
        self.members = [self._member(f"consumer-{number}") for number in range(members)]
        self.zombies: list[Member] = []
        self._rebalance()

    def _member(self, name: str) -> Member:
        core = self.make(
            self.guarantee,
            backoff_s=lambda attempts: min(0.001 * 2**attempts, 0.05),
            in_flight_max=self.random.choice((1, 5, 40)),
            batch_max=self.random.choice((1, 3, 10)),
            attempts_max=3,
            commit_interval_s=self.random.choice((0.0, 0.005)),
        )
        return Member(name, core)

    # ------------------------------------------------------------------ the course of a run

    def run(self) -> None:
        """Strike `strikes` times, then let it come to rest. Raises AssertionError if it doesn't."""
        while self.strikes_left:
            self._step()
            if self.random.random() < 0.05:
                self._strike()
                self.strikes_left -= 1
        for _ in range(200_000):
            if all(self.committed[each] == len(self.logs[each]) for each in PARTITIONS):
                break
            self._step(producing=False)
        else:
            raise AssertionError(f"no rest: {self.committed}, {self.members[0].core.counts}")
        for member in self.members:  # what is committed may, at most once, still be under way
            for _ in range(10_000):
                self._advance(member)
                if not member.core.in_flight:
                    break

    def _step(self, *, producing: bool = True) -> None:
        self.now += self.random.uniform(0, 0.002)
        if producing and self.random.random() < 0.5:
            self._produce()
        member = self.random.choice(self.members + self.zombies)
        self._advance(member)

    def _produce(self) -> None:
        keyed = self.random.random() < 0.8
        key = f"key-{self.random.randrange(KEYS)}" if keyed else None
        number = self._of_key[key or ""]
        self._of_key[key or ""] += 1
        message = Message(f"m{len(self.messages)}", key, number, self.random.random() < 0.03)
        self.messages.append(message)
        at = int(key[4:]) % len(PARTITIONS) if key else self.random.randrange(len(PARTITIONS))
        self.logs[PARTITIONS[at]].append(message)

    def _advance(self, member: Member) -> None:
        """One thing that a consumer does: fetch, ask its core, or get an answer to something."""
        self._fetch(member)
        ready: Ready = member.core.ready(self.now)
        member.ask(ready)
        if member.pending and self.random.random() < 0.7:
            self._answer(member, *member.pending.pop(self.random.randrange(len(member.pending))))

    def _fetch(self, member: Member) -> None:
        for partition, position in member.fetched.items():
            if member.paused or member.generation != self.generation:
                return  # a zombie is told so by its next fetch; until then it works off its own
            log = self.logs[partition][position : position + self.random.randint(0, 8)]
            member.core.received(
                Record(partition, position + number, message.id, message.key, message)
                for number, message in enumerate(log)
            )
            member.fetched[partition] = position + len(log)

    def _answer(self, member: Member, kind: str, asked: Any) -> None:
        if kind == "commit":
            told = member.core.committed if self._commit(*asked) else member.core.commit_failed
            told(asked[1], self.now)
        elif kind == "dead letter":
            ok = self.random.random() < 0.8
            if ok or self.random.random() < 0.5:  # an answer may be lost, too
                self.dead[asked.record.id] += 1
            member.core.dead_lettered(asked.record, ok, self.now)
        else:
            member.core.finished(asked[1].number, self._effects(*asked), self.now)

    def _commit(self, generation: int, commit: Commit) -> bool:
        if generation != self.generation or self.random.random() < 0.1:
            return False
        assert commit.offset >= self.committed[commit.partition], "a commit moved back"
        self.committed[commit.partition] = commit.offset
        return True

    def _effects(self, generation: int, batch: Batch) -> list[Outcome]:
        if self.guarantee == "transactional":
            return self._transaction(generation, batch)
        outcomes: list[Outcome] = []
        for record in batch.records:
            dice = self.random.random()
            if dice < 0.02:
                outcomes.append("unavailable")  # it never got there
                break
            outcome = self.sink.apply(record.value)
            if dice < 0.04:
                outcome = "unavailable"  # it took place, and the answer is lost
            outcomes.append(outcome)
            if outcome not in ("applied", "duplicate"):
                break
        return outcomes

    def _transaction(self, generation: int, batch: Batch) -> list[Outcome]:
        """All of it or nothing, the commit included; a member of an old generation is fenced."""
        if generation != self.generation or self.random.random() < 0.05:
            return ["unavailable"]
        assert batch.commit is not None
        outcomes = []
        for record in batch.records:
            outcomes.append(self.sink.apply(record.value))
            if outcomes[-1] == "rejected":
                self.dead[record.id] += 1
        self.committed[batch.partition] = batch.commit
        return outcomes

    # ------------------------------------------------------------------ strikes

    def _strike(self) -> None:
        kind = self.random.choice(("kill", "kill", "rebalance", "zombie", "return"))
        self.strikes[kind] += 1
        if kind == "kill":
            at = self.random.randrange(len(self.members))
            self._die(self.members[at])
            self.members[at] = self._member(self.members[at].name)
        elif kind == "zombie":
            at = self.random.randrange(len(self.members))
            self.zombies.append(self.members[at])
            self.members[at] = self._member(self.members[at].name)
        elif kind == "return" and self.zombies:
            self._die(self.zombies.pop())  # it learns that it was thrown out, and forgets
        self._rebalance()

    def _die(self, member: Member) -> None:
        """What was on its way may arrive all the same; nobody hears of it."""
        for kind, asked in member.pending:
            if self.random.random() < 0.5:
                if kind == "batch":
                    self._effects(*asked)
                elif kind == "commit":
                    self._commit(*asked)
        member.pending = []

    def _rebalance(self) -> None:
        """A new generation: every member that is told gives up its partitions and gets others."""
        for member in self.members:
            for partition in member.core.partitions:
                self._give_up(member, partition)
        self.generation += 1
        for member in self.members:
            member.generation, member.fetched = self.generation, {}
        for partition in PARTITIONS:
            owner = self.random.choice(self.members)
            owner.core.assigned(partition, self.now)
            owner.fetched[partition] = self.committed[partition]

    def _give_up(self, member: Member, partition: str) -> None:
        """Cooperatively, half of the time: finish what is under way and commit it first."""
        if self.random.random() < 0.5:
            member.core.drain(partition)
            for _ in range(200):
                if member.core.idle(partition):
                    break
                self.now += 0.001
                ready = member.core.ready(self.now)
                member.ask(ready)
                while member.pending:
                    self._answer(member, *member.pending.pop())
        member.core.forget(partition)

    # ------------------------------------------------------------------ what must be so

    def check(self) -> None:
        """The guarantee, on every message that was produced."""
        times = Counter(self.sink.applied)
        for message in self.messages:
            seen = times[message.id]
            if message.poison:
                assert seen == 0, f"{message} is poison and was applied"
                if self.guarantee != "at_most_once":
                    assert self.dead[message.id] >= 1, f"{message} is no dead letter"
            elif self.guarantee == "at_most_once":
                assert seen <= 1, f"{message} was applied {seen} times"
            elif self.guarantee == "at_least_once":
                assert seen >= 1, f"{message} was lost"
            else:
                assert seen == 1, f"{message} was applied {seen} times"
        if self.guarantee != "at_most_once":
            for key, numbers in self.sink.order.items():
                first = list(dict.fromkeys(numbers))
                assert first == sorted(first), f"{key} was applied out of order: {first}"

    def lost(self) -> int:
        times = Counter(self.sink.applied)
        return sum(not message.poison and not times[message.id] for message in self.messages)

    def repeated(self) -> int:
        return sum(count - 1 for count in Counter(self.sink.applied).values())
