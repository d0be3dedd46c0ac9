"""Counters, sets and sequences of the leaderless store in the simulation: what must hold of them.

The clients remember each update, which version-vector entry it got and what its coordinator had
seen. So of every state it is known what its value must be, by the updates that its context covers
and by the specification of its type (Burckhardt et al. 2014), whatever the replicas merged:

- a counter is the sum of its increments, each name once;
- an element is in a set if an add of it is known that no known removal has seen;
- a sequence has what was inserted, each name once, and not deleted.

Checked whenever a state is written to a disk or answered to a client. Clients that get no answer,
or not at once, ask again at any node, under the same name. At the end every acknowledged update is
in every home's state. So no increment is lost, and none counts twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from services.protocols.core import NotLeader
from services.protocols.quorum import Quorum, Reply, Siblings
from services.protocols.quorum.data import (
    Add,
    Delete,
    Increment,
    Insert,
    Kind,
    Refused,
    Remove,
    Update,
    key_for,
)
from tests.simulation.cluster import Node, Violation
from tests.simulation.quorum import (
    COPIES,
    LOST,
    MEETS,
    Client,
    Knowledge,
    QuorumRun,
    QuorumWorkload,
)

KINDS: dict[str, Kind] = {"k0": "counter", "k1": "set", "k2": "sequence", "k3": "counter"}
VALUE = "a value is what its updates made"
Entry = tuple[str, int]  # of a version vector: this node's how-manieth update of the key


@dataclass(frozen=True, slots=True)
class Asked:
    """An update as its client sends it, once or again; `name` is the client's for it."""

    key: str
    name: str
    update: Update

    @property
    def repeatable(self) -> bool:
        return isinstance(self.update, Add) or getattr(self.update, "name", None) is not None


@dataclass(frozen=True, slots=True)
class Made:
    """One that changed something at its coordinator; `saw`: what that one knew before."""

    asked: Asked
    saw: Siblings


class DataKnowledge(Knowledge):
    """All updates by key and entry; which of them, by name, were acknowledged."""

    def __init__(self) -> None:
        super().__init__(promised=True)
        self.made: dict[str, dict[Entry, Made]] = {}
        self.acknowledged: dict[str, set[str]] = {}

    def check(self, who: str, key: str, state: Siblings) -> None:
        """Is the value that which the updates in `state` make?"""
        covered = {
            entry: made for entry, made in self.made.get(key, {}).items() if state.covers(entry)
        }
        expected, found = expected_value(key, covered), found_value(key, state)
        if found != expected:
            raise Violation(VALUE, f"{who} has {found} in {key!r}, not {expected}: {state}")

    def names(self, key: str, state: Siblings) -> set[str]:
        """Of the updates that are in `state`."""
        return {
            made.asked.name for entry, made in self.made.get(key, {}).items() if state.covers(entry)
        }

    def demand(
        self, invariant: str, who: str, key: str, names: Iterable[str], state: Siblings
    ) -> None:
        """These acknowledged updates are in `state`."""
        missing = set(names) - self.names(key, state)
        if missing:
            raise Violation(invariant, f"{who} has {state} of {key!r}, without {sorted(missing)}")


def expected_value(key: str, made: dict[Entry, Made]) -> Any:
    """What the specification of the type says of these updates."""
    updates = {each.asked.name: each.asked.update for each in made.values()}
    if key.startswith("counter"):
        return sum(update.by for update in updates.values() if isinstance(update, Increment))
    if key.startswith("sequence"):
        inserted = {each.value for each in updates.values() if isinstance(each, Insert)}
        return sorted(inserted - {
            each.saw.data.sequence.elements[each.asked.update.at].value
            for each in made.values()
            if isinstance(each.asked.update, Delete) and each.saw.data and each.saw.data.sequence
        })  # fmt: skip
    removals = [each for each in made.values() if isinstance(each.asked.update, Remove)]
    return sorted({
        each.asked.update.element
        for entry, each in made.items()
        if isinstance(each.asked.update, Add)
        and not any(
            removal.asked.update == Remove(each.asked.update.element) and removal.saw.covers(entry)
            for removal in removals
        )
    })  # fmt: skip


def found_value(key: str, state: Siblings) -> Any:
    """What `state` says."""
    data = state.data
    if key.startswith("counter"):
        return data.counter.value if data and data.counter else 0
    if key.startswith("sequence"):
        return sorted(data.sequence.value) if data and data.sequence else []
    return sorted(data.elements.value) if data and data.elements else []


@dataclass(slots=True)
class Pending:
    """A request that was not answered yet; of a read `floor` is what was acknowledged before it."""

    key: str
    asked: Asked | None
    floor: frozenset[str]


class DataWorkload(QuorumWorkload):
    """Clients that update and read."""

    knowledge: DataKnowledge

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.repeats = self.random.choice((0.2, 0.5))
        self.repeated = 0
        self._waiting: dict[tuple[str, int, int], Pending] = {}
        self._unanswered: list[Asked] = []

    def _ask(self, node: Node, client: Client, key: str, is_read: bool) -> None:
        core: Any = node.core
        self._requests += 1
        request, name = self._requests, key_for(KINDS[key], key)
        asked = None if is_read else self._chosen(core, name)
        floor = frozenset(self.knowledge.acknowledged.get(name, ()))
        at = node.name, node.incarnation, request
        self._waiting[at] = Pending(name, asked, floor)

        def ask(core: Any) -> None:
            if asked is None:
                core.read(request, name)
            else:
                self._update(core, request, asked)

        try:
            self.cluster.input(node, ask)
        except NotLeader:
            del self._waiting[at]
            raise
        except Refused:
            del self._waiting[at]  # of an element that this node does not know, or not yet

    def _update(self, core: Quorum, request: int, asked: Asked) -> None:
        before = core.state(asked.key)
        core.update(request, asked.key, asked.update)
        after = core.state(asked.key)
        if after.context != before.context:
            # (An entry is given out twice only if the first died with its node, before its disk.)
            entry = core.disk, after.context[core.disk]
            self.knowledge.made.setdefault(asked.key, {})[entry] = Made(asked, before)

    def _chosen(self, core: Quorum, key: str) -> Asked:
        """One that somebody waits for, again; or a new one."""
        waiting = [each.asked for each in self._waiting.values() if each.asked is not None]
        again = [each for each in (*waiting, *self._unanswered) if each.key == key
                 and each.repeatable]  # fmt: skip
        if again and self.random.random() < self.repeats:
            self.repeated += 1
            return self.random.choice(again)
        name = f"u{self._requests}"
        return Asked(key, name, self._new(core, key, name))

    def _new(self, core: Quorum, key: str, name: str) -> Update:
        random, number = self.random, self._requests
        named = name if random.random() < 0.7 else None
        data = core.state(key).data
        if key.startswith("counter"):
            return Increment(random.choice((1, 1, -1)) * number, named)
        if key.startswith("set"):
            known: Any = sorted(data.elements.value) if data and data.elements else []
            if known and random.random() < 0.4:
                return Remove(random.choice(known))
            return Add(b"%d" % number)
        sequence = data.sequence if data else None
        order = sequence.order() if sequence else []
        # (Of a named insert there may be a second element elsewhere, which the delete can't mean.)
        unnamed = [at for at in order if sequence and at not in sequence.named.values()]
        if unnamed and random.random() < 0.3:
            return Delete(random.choice(unnamed))
        after = random.choice([None, *order])
        return Insert(b"%d" % number, after, named)

    def replied(self, node: Node, reply: Reply) -> None:
        """An answer has reached its client."""
        pending = self._waiting.pop((node.name, node.incarnation, reply.request))
        asked, key, who = pending.asked, pending.key, f"a client of {node.name}"
        if not reply.done:
            if asked is not None:
                self._unanswered.append(asked)
            return
        self.knowledge.check(who, key, reply.state)
        if asked is None:
            self.served += 1
            if self.meets:
                self.knowledge.demand(MEETS, who, key, pending.floor, reply.state)
            return
        self.answered += 1
        self.acknowledged[reply.request] = asked.name.encode()
        self.knowledge.acknowledged.setdefault(key, set()).add(asked.name)
        self.knowledge.demand(LOST, who, key, [asked.name], reply.state)
        copies = self.copies(key, reply.state)
        if copies < self.write_quorum:
            raise Violation(COPIES, f"{asked} is on {copies} disks")


@dataclass(slots=True)
class DataOutcome:
    """What a run did; `twice`: updates that two nodes carried out, each for itself."""

    seed: int
    steps: int
    meets: bool
    acknowledged: int
    reads: int
    crashes: int
    repeated: int
    twice: int
    told: dict[str, int] = field(default_factory=dict)


class DataRun(QuorumRun):
    """One seed: as `QuorumRun`, with data types in place of plain values."""

    name = "data_types"
    clients = DataWorkload
    workload: DataWorkload
    knowledge: DataKnowledge

    def _nothing_known(self) -> DataKnowledge:
        self.promised = True  # whatever settles conflicts between plain values
        return DataKnowledge()

    def outcome(self) -> Any:
        made = [each.asked.name for of in self.knowledge.made.values() for each in of.values()]
        return DataOutcome(
            self.seed,
            self.cluster.steps,
            self.meets,
            len(self.workload.acknowledged),
            self.workload.served,
            self.crashes,
            self.workload.repeated,
            len(made) - len(set(made)),
            dict(self.invariants.told),
        )

    def _check_end(self) -> None:
        for key in self._keys():
            for home in self._homes(key):
                state = home.state(key)
                self.knowledge.check(home.node, key, state)
                acknowledged = self.knowledge.acknowledged.get(key, set())
                self.knowledge.demand(LOST, home.node, key, acknowledged, state)
        self._check_disks()
