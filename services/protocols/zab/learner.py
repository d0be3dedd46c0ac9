"""What a leader knows about one follower, and how far it has come towards phase 3.

ABSENT     Not heard of in this leadership.
JOINED     Its CEPOCH has come: it is to be sent NEWEPOCH, and has not answered.
MEASURED   Its ACK-E says what its history is: it can be synchronised (TRUNC, DIFF, SNAP,
           NEWLEADER, one message at a time, each answered).
SYNCED     It has acknowledged NEWLEADER: proposals are sent ahead of their acknowledgements.

A CEPOCH takes it back to JOINED from anywhere. What it has promised and acknowledged stays true
nevertheless: it is on its disk.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from services.protocols.zab.messages import Zxid

if TYPE_CHECKING:
    from services.protocols.core import NodeId, Snapshot


class Stage(Enum):
    ABSENT = "absent"
    JOINED = "joined"
    MEASURED = "measured"
    SYNCED = "synced"


class Learner:
    """One follower as the leader sees it (ZooKeeper's LearnerHandler). Empty on other nodes."""

    __slots__ = (
        "accepted_epoch",
        "ends",
        "heard_tick",
        "in_flight",
        "last",
        "match_counter",
        "next_counter",
        "node",
        "offset",
        "pinged_counter",
        "promised",
        "repeated",
        "rewound_to",
        "round",
        "sent_tick",
        "snapshot",
        "stage",
    )

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.reset(tick=0)

    def reset(self, *, tick: int) -> None:
        """At the beginning of a leadership."""
        self.stage = Stage.ABSENT
        self.accepted_epoch = 0
        self.promised = False  # it answered NEWEPOCH with a promise, and is not ahead of us
        self.match_counter = 0  # acknowledged in this epoch, by ACK-LD first: on its disk
        self.heard_tick = tick
        self.sent_tick = tick  # when it was last sent a step of phases 1 and 2
        self.round = 0  # the newest ping it has answered
        self.measure([])
        self.synced()

    def measure(self, ends: list[Zxid]) -> None:
        """Synchronisation begins, from the history with these ends."""
        self.ends = ends
        self.last = ends[-1] if ends else Zxid(0, 0)
        self.repeated = False  # this step had to be sent again
        self.snapshot: Snapshot | None = None  # the one that is being sent
        self.offset = 0

    def synced(self) -> None:
        """Proposals begin, behind what it has acknowledged."""
        self.snapshot = None
        self.next_counter = self.match_counter + 1
        self.in_flight: deque[int] = deque()  # the last counter of each unacknowledged message
        self.pinged_counter = 0  # the last counter sent before the newest ping
        self.rewound_to = 0  # where a gap made proposals begin again

    def rewind(self, counter: int) -> None:
        """What was sent behind `counter` did not arrive: send it again."""
        self.next_counter = max(counter, self.match_counter) + 1
        self.in_flight.clear()
