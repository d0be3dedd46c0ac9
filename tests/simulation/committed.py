"""What holds of every protocol that orders one log, whatever it calls the number of the leader that
an entry is of (term, view, epoch, ballot), and a seeded run of one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from services.protocols.core import Entry, Snapshot
from tests.simulation.cluster import Machine, Node, Violation
from tests.simulation.run import OutcomeT, Run
from tests.simulation.sessions import SessionMachine

SAFETY = "state-machine safety"
ONCE = "exactly once"
DURABILITY = "durability"


@dataclass(slots=True)
class Commitment:
    """An entry that some node held to be committed, and the term in which it did so first."""

    term: int
    command: bytes
    in_term: int


class CommittedLog:
    """The part of `cluster.Observer` that compares with `committed`.

    `word`: what a term is called; `machine`: what the commands are for. What it breaks to apply
    another command than was committed (`safety`), to restore what was not (`snapshots`), to have
    another entry there in the end (`matching`), not to have applied all by then (`complete`), and
    to hold something else than the commands make of it (`only_log`), by the protocol's own names.
    """

    word: str
    machine: type[Machine] = SessionMachine
    safety = snapshots = complete = SAFETY
    matching = "log matching"
    only_log = ONCE

    def __init__(self) -> None:
        self.entries: dict[tuple[int, int], tuple[bytes, int | None]] = {}
        self.committed: list[Commitment] = []  # at position index - 1

    def applied(self, node: Node, entry: Entry) -> None:
        known = self.committed[entry.index - 1]
        if (known.term, known.command) != (entry.term, entry.command):
            raise Violation(self.safety, f"{node.name} applies {entry}, but {known} was committed")

    def restored(self, node: Node, snapshot: Snapshot) -> None:
        index = snapshot.last_index
        if index > len(self.committed) or self.committed[index - 1].term != snapshot.last_term:
            raise Violation(
                self.snapshots,
                f"{node.name} restores up to {index} of {self.word} {snapshot.last_term}, which "
                f"was not committed",
            )
        if node.machine.values != self.state_at(index):
            raise Violation(
                self.only_log, f"{node.name} restores another state than the log's at {index}"
            )

    def state_at(self, index: int) -> dict[str, str]:
        machine = self.machine()
        for position, known in enumerate(self.committed[:index], 1):
            machine.apply(Entry(position, known.term, known.command))
        return machine.values

    def term_at(self, core: Any, index: int) -> int | None:
        """Of the entry of a core's log; None: it is not there."""
        raise NotImplementedError

    def log_matching(self, core: Any, records: list[Any]) -> None:
        """One index and term, one command, and one entry before it, in all logs."""
        for record in records:
            if not isinstance(record, Entry) or self.term_at(core, record.index) != record.term:
                continue  # not an entry, or one that the same step replaced again
            seen = (record.command, self.term_at(core, record.index - 1))
            known = self.entries.setdefault((record.index, record.term), seen)
            if known != seen:
                raise Violation(
                    self.matching,
                    f"{core.node} has {record} after {self.word} {seen[1]}, another log has "
                    f"{known[0]!r} after {self.word} {known[1]} at that index and {self.word}",
                )


class LogRun(Run[OutcomeT]):
    """One seed of a protocol that orders one log: how its cores are made, what holds at the end."""

    shipped: ClassVar[Callable[..., Any]]
    core: Callable[..., Any]  # the shipped one, or one with a bug
    election_ticks: int
    heartbeat_ticks: int
    limits: Any
    invariants: Any  # a `CommittedLog`

    def _make_core(self, node: str, peers: tuple[str, ...], records: list[Any]) -> Any:
        return self.core(
            node,
            peers,
            random=Random(self.random.getrandbits(64)),
            records=records,
            election_ticks=self.election_ticks,
            heartbeat_ticks=self.heartbeat_ticks,
            limits=self.limits,
            **self._lots(),
        )

    def _lots(self) -> dict[str, Any]:
        """What else a core is given by chance at each start."""
        return {}

    def _check_end(self) -> None:
        log, committed = self.invariants, self.invariants.committed
        for index, command in self.workload.acknowledged.items():
            if committed[index - 1].command != command:
                raise Violation("acknowledged, never lost", f"{command!r} at {index}")
        state = log.state_at(len(committed))
        for node in self.cluster.nodes.values():
            node.core.check_invariants()
            if node.machine.applied_index != len(committed):
                raise Violation(log.complete, f"{node.name} applied not all of {len(committed)}")
            if node.machine.values != state:
                raise Violation(
                    log.only_log, f"{node.name} holds {node.machine.values}, not {state}"
                )
            for entry in self._entries(node.core):
                known = committed[entry.index - 1]
                if (entry.term, entry.command) != (known.term, known.command):
                    raise Violation(log.matching, f"{node.name} has {entry}, not {known}")
            node.disk.sync()
            try:
                again = self._restarted(node.core, node.disk.records)
            except ValueError as error:
                raise Violation(DURABILITY, f"{node.name} could not restart: {error}") from error
            self._check_restart(node.core, again)

    @abstractmethod
    def _entries(self, core: Any) -> Iterable[Entry]:
        """Those of its log that must be as they were committed."""

    def _restarted(self, core: Any, records: list[Any]) -> Any:
        """The shipped core, begun anew from what is on a disk. Raises ValueError: it cannot be."""
        return self.shipped(core.node, core.peers, random=Random(0), records=records)

    @abstractmethod
    def _check_restart(self, core: Any, again: Any) -> None:
        """What it would be after a restart is what it is. Raises Violation."""
