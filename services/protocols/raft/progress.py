"""What a leader knows about one follower (figure 2: nextIndex and matchIndex), and how it sends.

PROBE      The leader guesses where the logs meet: one message, then wait for its answer.
REPLICATE  They have met: entries are sent ahead of their acknowledgements (dissertation §10.2.1),
           `next_index` runs ahead of `match_index` by at most a window of messages.
SNAPSHOT   The entries it needs are gone: chunks of a snapshot are sent, one at a time.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.protocols.core import NodeId, Snapshot


class Sending(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower as the leader sees it. Meaningful on a leader only."""

    __slots__ = (
        "heard_tick",
        "in_flight",
        "match_index",
        "match_round",
        "next_index",
        "node",
        "offset",
        "probe_sent",
        "round",
        "sending",
        "sent_tick",
        "snapshot",
    )

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.reset(last_index=0, tick=0)

    def reset(self, *, last_index: int, tick: int) -> None:
        """As on election: `nextIndex` = leader's last index + 1, `matchIndex` = 0."""
        self.sending = Sending.PROBE
        self.next_index = last_index + 1
        self.match_index = 0
        self.match_round = 0  # the round of the response that last moved match_index
        self.probe_sent = False
        self.in_flight: deque[int] = deque()  # the last index of each unacknowledged message
        self.round = 0  # the newest heartbeat round it has answered
        self.heard_tick = tick  # the leader's tick at which it was last heard
        self.snapshot: Snapshot | None = None
        self.offset = 0  # of the chunk that is on its way
        self.sent_tick = 0  # the leader's tick at which that chunk was sent

    def probe(self, next_index: int) -> None:
        assert next_index > self.match_index, (next_index, self.match_index)
        self.sending = Sending.PROBE
        self.next_index = next_index
        self.probe_sent = False
        self.in_flight.clear()
        self.snapshot = None

    def replicate(self) -> None:
        self.sending = Sending.REPLICATE
        self.next_index = self.match_index + 1
        self.in_flight.clear()
        self.snapshot = None

    def send_snapshot(self, snapshot: Snapshot) -> None:
        self.sending = Sending.SNAPSHOT
        self.in_flight.clear()
        self.snapshot = snapshot
        self.offset = 0
