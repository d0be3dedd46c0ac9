"""What holds of every protocol that orders one log, whatever it calls the number of the leader that
an entry is of (term, view, epoch): raft, viewstamped and chain share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.protocols.core import Entry, Snapshot
from tests.simulation.cluster import Machine, Node, Violation
from tests.simulation.sessions import SessionMachine

SAFETY = "state-machine safety"
ONCE = "exactly once"


@dataclass(slots=True)
class Commitment:
    """An entry that some node held to be committed, and the term in which it did so first."""

    term: int
    command: bytes
    in_term: int


class CommittedLog:
    """The part of `cluster.Observer` that compares with `committed`.

    `word`: what a term is called; `machine`: what the commands are for, and `only_log` what it
    breaks to hold something else than the log's commands make of it.
    """

    word: str
    machine: type[Machine] = SessionMachine
    only_log = ONCE

    def __init__(self) -> None:
        self.entries: dict[tuple[int, int], tuple[bytes, int | None]] = {}
        self.committed: list[Commitment] = []  # at position index - 1

    def applied(self, node: Node, entry: Entry) -> None:
        known = self.committed[entry.index - 1]
        if (known.term, known.command) != (entry.term, entry.command):
            raise Violation(SAFETY, f"{node.name} applies {entry}, but {known} was committed")

    def restored(self, node: Node, snapshot: Snapshot) -> None:
        index = snapshot.last_index
        if index > len(self.committed) or self.committed[index - 1].term != snapshot.last_term:
            raise Violation(
                SAFETY,
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
                    "log matching",
                    f"{core.node} has {record} after {self.word} {seen[1]}, another log has "
                    f"{known[0]!r} after {self.word} {known[1]} at that index and {self.word}",
                )
