"""The words that the delivery core and its driver share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

Guarantee = Literal["at_most_once", "at_least_once", "effectively_once", "transactional"]
GUARANTEES: tuple[Guarantee, ...] = get_args(Guarantee)

# What became of one record:
#   applied      its effect took place now
#   duplicate    its effect had taken place before; nothing was changed
#   rejected     it can never succeed (poison): another attempt would end the same
#   failed       this attempt failed, by a fault of the record; another one may succeed
#   unavailable  what the effect needs is down, or did not answer: no fault of the record's, and
#                the effect may have taken place all the same (an indefinite error)
Outcome = Literal["applied", "duplicate", "rejected", "failed", "unavailable"]


@dataclass(frozen=True, slots=True)
class Record:
    """One delivery of a message.

    `partition` is where it comes from (a partition of a log, a queue), `offset` its place there;
    `id` names the message itself and is the same at each delivery. Records of the same `key` are
    processed in order, those without one in any. `value` and `headers` are the driver's business.
    """

    partition: str
    offset: int
    id: str
    key: str | None
    value: Any = None
    headers: tuple[tuple[str, str], ...] = ()


class Batch(NamedTuple):
    """Records of one key, or of one partition when `commit` is set: to be processed in order.

    `commit`: this offset is to be committed in the same transaction as the effects.
    """

    number: int
    partition: str
    records: tuple[Record, ...]
    commit: int | None = None


class Commit(NamedTuple):
    """Everything of `partition` before `offset`, that of the *next* record, is dealt with."""

    number: int
    partition: str
    offset: int


class DeadLetter(NamedTuple):
    """A record to be put aside where a human finds it, and why."""

    record: Record
    reason: Outcome
    attempts: int


@dataclass(slots=True)
class Ready:
    """What is to be done now, in any order; each is answered by a call of the core.

    `commits` are answered by `committed` or `commit_failed`, `batches` by `finished`,
    `dead_letters` by `dead_lettered`. `pause`: True, take no more records; False, go on; None, as
    before.
    """

    commits: list[Commit] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    pause: bool | None = None
