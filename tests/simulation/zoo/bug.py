"""What a planted bug is: a mistake with a name, and how soon the simulation must find it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bug:
    """A core, state machine, driver or world with one rule broken; None is the correct one.

    `core`: a subclass of the protocol's. `machine`: a subclass of the state machine that runs
    beside it. `persist_before_send`: does the driver keep its order? `clock_drift`: how far clocks
    are off, as a share, where leases trust them.

    The simulation must find it within `seeds` seeds from `first` on. (`first` spares the test suite
    the seeds that are known to find nothing; `make zoo` begins with 0.)
    """

    name: str
    core: Any = None
    machine: Any = None
    persist_before_send: bool = True
    clock_drift: float = 0.10
    first: int = 0
    seeds: int = 400

    @property
    def about(self) -> str:
        """The history that goes wrong."""
        broken = self.core or self.machine
        if broken is not None:
            return " ".join((broken.__doc__ or "").split())
        if not self.persist_before_send:
            return "Messages leave before the records they speak of are on disk; a crash forgets."
        return f"Clocks are off by {self.clock_drift:.0%}: a lease outlives what it rests on."


CORRECT = Bug("none")
