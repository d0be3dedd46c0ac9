"""What a core without a log to apply hands over; `services/chassis/answering.py` does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Ready:
    """What is to be done now, in the order of the fields; see `services/protocols/core.py`.

    Each of `replies`, of the core's own type, names the `request` that it ends.
    """

    persist: list[Any] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)
    replies: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.persist or self.messages or self.replies or self.events)
