"""A backup in normal operation (§4.1): PREPARE in order, COMMIT, and what shows that it is behind.

While its status is normal a backup's log is a prefix of the log of the primary of its view. So a
PREPARE needs no comparison: what is new is appended, what is known is skipped, and a gap is asked
for (§4.1: a backup "won't accept a prepare with op-number n until it has entries for all earlier
requests in its log"; §5.2).
"""

from __future__ import annotations

from services.protocols.viewstamped.messages import Commit, Prepare, PrepareOk, StartView
from services.protocols.viewstamped.state import ReplicaState, Status


class Backup(ReplicaState):
    """What a replica does when the primary of some view speaks."""

    def on_prepare(self, message: Prepare) -> None:
        if not self._follows(message):
            return
        after, entries, log = message.op_number, message.entries, self.log
        if entries and (
            entries[0].index != after + 1 or entries[-1].index != after + len(entries)
        ):  # not something a primary builds: the log must not pay for it
            return
        if after > log.last_index:
            self.transfer_from(message.src, target=after + len(entries))
        else:
            new = entries[log.last_index - after :]
            if new:
                self.append(new)
        self._learn_commit(message.commit_number)
        self.acknowledge(message.round)

    def on_commit(self, message: Commit) -> None:
        if not self._follows(message):
            return
        if message.op_number > self.log.last_index:
            self.transfer_from(message.src, target=message.op_number)
        self._learn_commit(message.commit_number)
        self.acknowledge(message.round)

    def on_start_view(self, message: StartView) -> None:
        """§4.2: the other replicas take over the log of the new view, "set their op-number to that
        of the latest entry in the log, set their view-number […], change their status to normal".
        """
        if message.src != self.primary(message.view) or message.view < self.view:
            return
        if message.view > self.view:
            self.enter_view(message.view, f"{message.src} starts it")
        self.hear_primary(message.src)
        if self.status_ is Status.NORMAL:
            self.acknowledge(0)  # it came twice
            return
        self.transfer_from(message.src, target=message.op_number, target_view=message.op_view)

    def _follows(self, message: Prepare | Commit) -> bool:
        """From the primary of our view, and is our log that view's? If not, get it."""
        if message.src != self.primary(message.view) or message.view < self.view:
            return False
        if message.view > self.view:
            self.enter_view(message.view, f"{message.src} leads it")
        self.hear_primary(message.src)
        if self.status_ is Status.NORMAL:
            return True
        # STARTVIEW has been lost, or is behind this message: the answer to GETSTATE does as well.
        self.transfer_from(message.src)
        return False

    def _learn_commit(self, commit_number: int) -> None:
        self.commit_number = max(self.commit_number, min(commit_number, self.log.last_index))

    def acknowledge(self, round_: int) -> None:
        """One PREPAREOK serves all that came in since the last `ready()`."""
        assert self.status_ is Status.NORMAL, f"{self.node} acknowledges while {self.status_}"
        primary = self.primary(self.view)
        pending = self._pending_ok
        if pending is not None and (pending.dst, pending.view) == (primary, self.view):
            pending.op_number = self.log.last_index
            pending.round = max(pending.round, round_)
            return
        self._pending_ok = PrepareOk(self.node, primary, self.view, self.log.last_index, round_)
        self.send(self._pending_ok)
