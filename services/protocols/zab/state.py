"""The state that all roles share, what of it is persisted, and the way back to an election."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, Unpack

from services.protocols import member
from services.protocols.core import Entry, NodeId, Snapshot
from services.protocols.rounds import ReadRounds
from services.protocols.zab.history import History
from services.protocols.zab.learner import Learner
from services.protocols.zab.messages import Epochs, Notification, Truncate, Zxid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from services.protocols.member import Settings
    from services.protocols.zab.messages import Record


class State(Enum):
    """Medeiros §3: election (here ZooKeeper's word, looking), following, leading."""

    LOOKING = "looking"
    FOLLOWING = "following"
    LEADING = "leading"


class Phase(IntEnum):
    """Of the paper (§IV), and 0 for the election before them (Medeiros §3.1)."""

    ELECTION = 0
    DISCOVERY = 1
    SYNCHRONISATION = 2
    BROADCAST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(member.Limits):
    """`member.Limits`, and these."""

    messages_in_flight: int = 64  # Propose, per follower


class ZabState(ReadRounds):
    """Fields and the steps that belong to no role."""

    limits: Limits

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        *,
        random: Random,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(node, peers, **settings)
        self.random = random

        # Persistent state (Medeiros §3): survives as records.
        self.accepted_epoch = 0  # f.p: the epoch of the last NEWEPOCH accepted
        self.current_epoch = 0  # f.a: the epoch of the last NEWLEADER accepted
        self.history = History()

        # Volatile state.
        self.state = State.LOOKING
        self.phase = Phase.ELECTION
        self.elected: NodeId | None = None  # whom it follows, or itself while it leads
        self.commit_index = 0
        self.applied_index = 0  # the last counter handed over in `Ready.committed` or `restore`
        self.round = 0  # of elections (Medeiros §4.2: the logical clock)
        self.learners = {peer: Learner(peer) for peer in peers}

        # What the next ready() hands over. Records in the order in which they came about: any
        # prefix of them is a state that this node was in.
        self._records: list[Record] = []
        self._snapshot_changed = False
        self._epochs_changed = False

    # ---- persistent state -------------------------------------------------------------------

    def replay(self, records: Iterable[Record]) -> None:
        """Rebuild the persistent state. Raises ValueError if the records cannot be Zab's."""
        history = self.history
        for record in records:
            if isinstance(record, Entry):
                if record.index != history.last_index + 1:
                    raise ValueError(f"entry {record.index} does not follow {history.last}")
                history.extend([record])
            elif isinstance(record, Epochs):
                self.accepted_epoch = record.accepted_epoch
                self.current_epoch = record.current_epoch
            elif isinstance(record, Truncate):
                if not history.snapshot_index <= record.counter <= history.last_index:
                    raise ValueError(f"history of {history.last} cannot end at {record.counter}")
                history.truncate(record.counter)
            elif isinstance(record, Snapshot):
                history.reset(record)
                self._restore = record
                self.commit_index = self.applied_index = record.last_index
            else:
                raise ValueError(f"not a record of Zab: {record!r}")
        if not max(self.current_epoch, history.last.epoch) <= self.accepted_epoch:
            raise ValueError(
                f"history up to {history.last} and epoch {self.current_epoch}, but no promise "
                f"beyond epoch {self.accepted_epoch}"
            )

    def set_epochs(self, accepted_epoch: int, current_epoch: int) -> None:
        assert self.current_epoch <= current_epoch <= accepted_epoch, (
            accepted_epoch,
            self.status(),
        )
        assert self.accepted_epoch <= accepted_epoch, (accepted_epoch, self.status())
        self.accepted_epoch, self.current_epoch = accepted_epoch, current_epoch
        self._records.append(Epochs(accepted_epoch, current_epoch))
        self._epochs_changed = True

    def append_entries(self, entries: Sequence[Entry]) -> None:
        self.history.extend(entries)
        self._records.extend(entries)

    def truncate_history(self, counter: int) -> None:
        self.history.truncate(counter)
        self._records.append(Truncate(counter))

    def recency(self) -> tuple[int, Zxid]:
        """currentEpoch and lastZxid, which histories are compared by."""
        return self.current_epoch, self.history.last

    def rank(self, current_epoch: int, last: Zxid) -> tuple[int, ...]:
        """Step l.1.2: the more recent history is that of who accepted the later leader, and of two
        that accepted the same one, that of who has more of it."""
        return current_epoch, *last

    # ---- time -------------------------------------------------------------------------------

    def patience(self) -> int:
        """A random time from [election_ticks, 2 · election_ticks) to do without a leader's word.

        At random, so that those who all failed together do not all begin again together.
        """
        return self.election_ticks + self.random.randrange(self.election_ticks)

    # ---- roles ------------------------------------------------------------------------------

    def leads(self) -> bool:
        """An established leader: in phase 3."""
        return self.state is State.LEADING and self.phase is Phase.BROADCAST

    def leader(self) -> NodeId | None:
        """Whom to send clients to: the leader, if as far as this node knows it is established."""
        return self.elected if self.phase is Phase.BROADCAST else None

    def look(self, reason: str) -> None:
        """Back to phase 0: begin a new round of the election."""
        if self.state is State.LEADING:
            self.emit("step_down", term=self.accepted_epoch, reason=reason)
            self._leave_leadership()
        self.state, self.phase, self.elected = State.LOOKING, Phase.ELECTION, None
        self.refuse_reads()
        self.emit("look", round=self.round + 1, reason=reason)
        self.begin_round(self.round + 1)

    # ---- what one role needs of another -----------------------------------------------------

    def status(self) -> dict[str, Any]:
        raise NotImplementedError

    def begin_round(self, number: int) -> None:
        raise NotImplementedError

    def follow(self, leader: NodeId) -> None:
        raise NotImplementedError

    def lead(self) -> None:
        raise NotImplementedError

    def on_leader_notification(self, message: Notification) -> None:
        raise NotImplementedError

    def _leave_leadership(self) -> None:
        raise NotImplementedError
