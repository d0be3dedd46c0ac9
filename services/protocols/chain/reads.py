"""Reads, at any member of the chain (CRAQ's apportioned queries; §2.3 there).

A member has every update that was acknowledged, and perhaps some that are on their way. It may
answer once those are acknowledged as well, and once it is sure that its chain was still the last
one when the read came. For that it asks all servers: does any know of a later configuration? One
that is decided is in the master's log on a majority; if a majority is without, there was none.
"""

from __future__ import annotations

from services.protocols.chain.messages import Confirm, Confirmed
from services.protocols.chain.transfer import Transfer
from services.protocols.core import Busy, NodeId, NotLeader, ReadGrant, ReadRefusal


class Reads(Transfer):
    """The asking, the answering, and the waiting for what is on its way."""

    _round = 0

    def _begin_reads(self) -> None:
        self._waiting: list[int] = []  # for the next round of questions
        self._asked: list[int] = []  # the round under way is for these
        self._asked_index = 0
        self._unconfirmed_since = self.ticks  # some read has waited for confirmation since then
        self._confirmed_by: set[str] = set()
        self._dirty: list[ReadGrant] = []  # confirmed; their index is not yet acknowledged

    def read(self, read_id: int, *, lease: bool = False) -> None:
        """Ask for a read. There are no leases here: `lease` is served like any other.

        Raises NotLeader, with the tail to ask; Busy.
        """
        if not self.in_chain:
            raise NotLeader(self._tail())
        if len(self._waiting) + len(self._asked) + len(self._dirty) >= self.limits.waiting_reads:
            raise Busy(f"{self.limits.waiting_reads} reads are waiting")
        if not self._waiting and not self._asked:
            self._unconfirmed_since = self.ticks
        self._waiting.append(read_id)

    def _tail(self) -> NodeId | None:
        """Whom else to ask; None: not known."""
        return self.config.chain[-1] if self.leader() is not None else None

    def ask_for_reads(self) -> None:
        """Begin a round, for all reads that came in; one at a time."""
        if self._asked or not self._waiting or not self.synced:
            return
        self._asked, self._waiting = self._waiting, []
        # What anybody was told before now is in this log up to here.
        self._asked_index = self.verified
        self._round += 1
        self._confirmed_by = {self.node}
        self._ask()
        self._count_confirmations()

    def _ask(self) -> None:
        for peer in self.peers:
            if peer not in self._confirmed_by:
                self.send(Confirm(self.node, peer, self.epoch, self._round))

    def on_confirm(self, message: Confirm) -> None:
        if self.newest_epoch() <= message.epoch:
            self.send(Confirmed(self.node, message.src, message.epoch, message.round))

    def on_confirmed(self, message: Confirmed) -> None:
        if self._asked and (message.epoch, message.round) == (self.epoch, self._round):
            self._confirmed_by.add(message.src)
            self._count_confirmations()

    def _count_confirmations(self) -> None:
        if len(self._confirmed_by) >= self.quorum and self.newest_epoch() == self.epoch:
            self._dirty += [ReadGrant(read_id, self._asked_index) for read_id in self._asked]
            self._asked = []
            self._unconfirmed_since = self.ticks
            self.grant_reads()

    def grant_reads(self) -> None:
        """Those whose updates are acknowledged by now: clean, as CRAQ calls it."""
        if self._dirty:
            self._reads += [read for read in self._dirty if read.index <= self.commit_index]
            self._dirty = [read for read in self._dirty if read.index > self.commit_index]

    def refuse_reads(self) -> None:
        """The chain has changed."""
        waiting = self._waiting + self._asked + [read.read_id for read in self._dirty]
        self._reads += [ReadRefusal(read_id, self._tail()) for read_id in waiting]
        self._begin_reads()

    def watch_reads(self) -> None:
        """At a heartbeat: a question, or its answer, may be lost; but nobody waits in vain."""
        if self.ticks - self._unconfirmed_since >= self.election_ticks:
            self._reads += [ReadRefusal(read_id, None) for read_id in self._waiting + self._asked]
            self._waiting, self._asked = [], []
        elif self._asked:
            self._ask()
            self._count_confirmations()
