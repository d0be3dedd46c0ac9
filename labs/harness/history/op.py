"""What a run left behind: operations, and what the nemesis did meanwhile.

An operation is one call of one client process: it begins when the request is about to be sent
(`invoke_ns`) and ends when the reply is in the client's hands (`return_ns`). Its effect, if any,
took place at some instant in between, both ends included: equal times mean *concurrent*, so that a
clock too coarse to tell two events apart never produces a false alarm.

How it ended decides what a checker may conclude (Jepsen's words):

- `ok`: it happened; `output` is what the completion said.
- `fail`: it did **not** happen. A timeout is never `fail`.
- `info`: nobody knows; it may take effect at any time after its call, or never. Its process is
  not used again, and `return_ns` is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

OpType = Literal["ok", "fail", "info"]


class HistoryError(ValueError):
    """A history that cannot be judged; the message names the file and the line."""


@dataclass(slots=True)
class Op:
    """One operation.

    `value` is the argument, `output` the value of the completion: for a read, what was read (None:
    the key was absent). A cas has `[from, to]` as its value. A *failed* cas may carry more:
    `extra["current"]` is the value that the refusal reported (then it counts as a read of it), and
    `extra["mismatch"]` true says only that the value was not `from` at some instant of the call.
    Neither: it says nothing. `version` is the store's version of the value read or written.

    Units: nanoseconds since the start of the run, one monotonic clock for all processes.
    """

    process: int
    f: str
    key: str | None
    value: Any
    invoke_ns: int
    return_ns: int | None
    type: OpType
    output: Any = None
    version: int | None = None
    index: int = 0
    node: str | None = None
    client: str | None = None
    error: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def pending(self) -> bool:
        """Nobody knows whether it happened."""
        return self.type == "info"


@dataclass(slots=True)
class NemesisEvent:
    """Something that the nemesis planned, did, felt or undid at `time_ns`."""

    index: int
    time_ns: int
    type: str
    f: str
    value: Any = None
    error: str | None = None


@dataclass(slots=True)
class History:
    """All operations in the order of their calls, and the nemesis' events.

    Attributes:
        ops: ordered by `invoke_ns` (ties: by `index`).
        nemesis: ordered by `time_ns`.
        source: where it came from, for messages.
        lines: the line of each operation's call in that file; empty if it came from no file.
    """

    ops: list[Op]
    nemesis: list[NemesisEvent] = field(default_factory=list)
    source: str = "<memory>"
    lines: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ops)
