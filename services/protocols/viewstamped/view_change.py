"""View changes (§4.2): suspicion, leaving the old view, and the choice of the log of the new one.

1. A replica that hears no primary for a randomised timeout *suspects* (or for `election_ticks`, if
   another one does): it tells all others with STARTVIEWCHANGE which view it would go to, and
   repeats that. It has not moved: if the primary is heard again, it goes on. (The paper's replica
   moves at once, and drags all others along; a replica that is deaf in one direction would depose
   every primary for ever.)
2. A replica that suspects, and knows f others that do, moves: new view-number, on disk; and
   DOVIEWCHANGE to the primary of that view, repeated until it starts. Who hears its primary is not
   moved by anybody's suspicion: the lease stands on that.
3. That primary, with f + 1 DOVIEWCHANGE, takes the log with the largest v', of these the longest.
   No operation can be lost: what committed in a view ≤ v' was prepared by a quorum, one of which
   is among the f + 1, and each log of v' that is as long holds it at the same place.

Targets differ when replicas are in different views; a suspicion of view t is one of all views
before it, so each goes for the highest target it heard of, and a quorum moves to the highest t that
a quorum can agree to. If the primary of the new view is not there, the timeout strikes again, and
the next view belongs to the next replica (round robin).
"""

from __future__ import annotations

from services.protocols.viewstamped.messages import DoViewChange, StartViewChange
from services.protocols.viewstamped.primary import Primary
from services.protocols.viewstamped.state import Status


class ViewChange(Primary):
    """Both sides of a view change."""

    _suspicions: dict[str, tuple[int, int]]  # replica → (target, tick at which it was heard)
    _view_changes: dict[str, DoViewChange]  # to this view, on its primary
    _announce_due = 0
    _chosen_commit = 0

    # ---- suspicion --------------------------------------------------------------------------

    def suspect(self, reason: str) -> None:
        assert not self.leading, f"{self.node} leads view {self.view} and suspects its primary"
        assert self.status_ is not Status.RECOVERING, f"{self.node} recovers and suspects"
        self.suspects = True
        self.leader = None
        self.emit("start_view_change", term=self.target_view(), reason=reason)
        self._announce()
        self._count_suspicions()

    def target_view(self) -> int:
        return max([self.view + 1, *self._fresh_targets()])

    def _fresh_targets(self) -> list[int]:
        """What others suspect, if they said so lately (they repeat it)."""
        since = self.ticks - self.election_ticks
        return [target for target, tick in self._suspicions.values() if tick >= since]

    def _announce(self) -> None:
        self._announce_due = self.ticks + self.heartbeat_ticks
        target = self.target_view() if self.suspects else self.view
        for peer in self.peers:
            self.send(StartViewChange(self.node, peer, self.view, target, self.resigned))

    def on_start_view_change(self, message: StartViewChange) -> None:
        self._suspicions[message.src] = (message.target, self.ticks)
        if self.leading:
            if message.view > self.view:
                # It left this view by a quorum's suspicion and can't come back: it must be met.
                self.resign(f"{message.src} is in a later view")
            return
        released = (
            message.resigned
            and self.status_ is Status.NORMAL
            and (message.view, message.src) == (self.view, self.primary(self.view))
        )
        if not self.suspects and (released or self._may_join(message.target)):
            self.suspect(f"{message.src} resigned" if released else f"{message.src} does, too")
        elif self.suspects:
            self._count_suspicions()

    def _may_join(self, target: int) -> bool:
        """Silence of `election_ticks` is enough to agree with one whose timeout is over."""
        return target > self.view and self.ticks >= self.loyal_until

    def _count_suspicions(self) -> None:
        """Move to the highest view that a quorum, this replica included, would go to."""
        targets = sorted([self.target_view(), *self._fresh_targets()], reverse=True)
        if len(targets) >= self.quorum and targets[self.quorum - 1] > self.view:
            self._move_to(targets[self.quorum - 1], "a quorum suspects the primary")

    def tick_follower(self) -> None:
        """Time passes for a replica that does not lead."""
        if not self.suspects and self.ticks >= self.deadline:
            self.suspect("no primary heard for an election timeout")
        elif self.ticks >= self._announce_due:
            if self.suspects or self.status_ is Status.VIEW_CHANGE:
                self._announce()
            if self.suspects:
                self._count_suspicions()
        if self.status_ is Status.VIEW_CHANGE and self.ticks % (2 * self.heartbeat_ticks) == 0:
            self._do_view_change()  # it, or its effect, may be lost

    # ---- moving -----------------------------------------------------------------------------

    def _move_to(self, view: int, reason: str) -> None:
        self.enter_view(view, reason)
        self._announce()  # those who suspect, but have not heard enough others yet, may follow
        self._do_view_change()

    def _do_view_change(self) -> None:
        """§4.2: "it sends a ⟨DOVIEWCHANGE v, l, v', n, k, i⟩ message to the node that will be the
        primary in the new view"."""
        message = DoViewChange(
            self.node,
            self.primary(self.view),
            self.view,
            self.last_normal_view,
            self.log.last_index,
            self.commit_number,
            dict(self.lives),
        )
        if message.dst != self.node:
            self.send(message)
        elif not self._view_changes:
            self._view_changes[self.node] = message
            self._choose_log()

    # ---- the new primary --------------------------------------------------------------------

    def on_do_view_change(self, message: DoViewChange) -> None:
        if self.primary(message.view) != self.node or message.view < self.view:
            return
        self.merge_lives(message.lives)
        if self._is_of_an_old_life(message):
            return
        if message.view > self.view:
            if self.leading:
                self.resign(f"{message.src} is in a later view")
            if not self.suspects and self._may_join(message.view):
                self.suspect(f"{message.src} moved")
            if not self.suspects:
                return  # our primary is well; the sender will repeat itself
            if message.view > self.view:
                self._move_to(message.view, f"{message.src} moved")
        if message.view != self.view:
            return
        if self.leading:
            self.tell_view(message.src)
        elif self.status_ is Status.VIEW_CHANGE:
            self._view_changes[message.src] = message
            self._choose_log()

    def merge_lives(self, lives: dict[str, int]) -> None:
        newer = {node: life for node, life in lives.items() if life > self.lives.get(node, 0)}
        if newer:
            self.lives |= newer
            self.record_view()

    def _is_of_an_old_life(self, message: DoViewChange) -> bool:
        """Sent before its sender's disk was wiped, and its sender has recovered since, maybe into
        an older view: then it does not keep what the message promised (recovery.py)."""
        return message.lives.get(message.src, 0) < self.lives.get(message.src, 0)

    def _choose_log(self) -> None:
        """§4.2: "It selects as the new log the one contained in the message with the largest v'; if
        several messages have the same v' it selects the one among them with the largest n."
        """
        if self._chosen_commit:
            return  # chosen, and being fetched
        # Whose old life became known meanwhile does not count either.
        votes = [vote for vote in self._view_changes.values() if not self._is_of_an_old_life(vote)]
        if len(votes) < self.quorum or self.node not in self._view_changes:
            return
        best = max(votes, key=self.preference)
        self._chosen_commit = max(vote.commit_number for vote in votes) + 1
        self.emit(
            "choose_log",
            source=best.src,
            last_normal_view=best.last_normal_view,
            op_number=best.op_number,
        )
        if best.src == self.node:
            self.start_view()
        else:
            self.transfer_from(best.src, target=best.op_number)

    def preference(self, vote: DoViewChange) -> tuple[int, int, bool]:
        return vote.last_normal_view, vote.op_number, vote.src == self.node

    def start_view(self) -> None:
        """§4.2: it "sets its commit-number to the largest such number it received in the
        DOVIEWCHANGE messages, changes its status to normal, and informs the other replicas"."""
        commit_number = self._chosen_commit - 1
        assert commit_number <= self.log.last_index, (
            f"{self.node} starts view {self.view} with a log up to {self.log.last_index}, and "
            f"{commit_number} is committed"
        )
        self.commit_number = max(self.commit_number, commit_number)
        self.become_normal()
        self.lead()

    def forget_view_change(self) -> None:
        self._view_changes = {}
        self._chosen_commit = 0
