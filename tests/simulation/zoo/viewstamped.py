"""Planted bugs: mistakes that people make in Viewstamped Replication.

Each is a subclass of `Viewstamped` with one rule broken, or a driver, a world or a state machine
that breaks its promise. None of this is ever in the core. The first sentence says which rule, the
rest which history goes wrong.
"""

from __future__ import annotations

from typing import Any

from labs.broken import LogForgotten
from services.protocols.viewstamped import Status, Viewstamped
from services.protocols.viewstamped.messages import DoViewChange, ViewState
from tests.simulation.zoo.bug import Bug
from tests.simulation.zoo.machines import NoClientTable


class IgnoresLastNormalView(Viewstamped):
    """§4.2: the longest log wins, whatever its v'. A deposed primary's long tail of requests that
    never committed beats the shorter log that a later view has committed."""

    def preference(self, vote: DoViewChange) -> tuple[int, int, bool]:
        return 0, vote.op_number, vote.src == self.node


class WipedReplicaAnswers(Viewstamped):
    """§4.3: a replica with an empty disk takes part at once. n1 and n2 commit x, n2 is wiped, n1
    falls silent: n2 and n3, which never had x, are a quorum and begin without it."""

    def begin_recovery(self) -> None:
        super().begin_recovery()
        if self.status_ is Status.RECOVERING:
            self._found({})


class EmptyMajorityFounds(Viewstamped):
    """Founding (recovery.py): a majority of empty disks is taken for a new group. One is wiped
    while another was never told of the group: they found a second one, and the first stands still,
    or both give out the same op-numbers."""

    def _first_round(self) -> None:
        empty = [answer for answer in self._answers.values() if answer.view == 0]
        if len(empty) + 1 >= self.quorum and self.log.last_index == 0:
            names = {answer.src: answer.incarnation for answer in empty}
            self._found({self.node: self.incarnation, **names})
        else:
            super()._first_round()


class NoCrashVector(Viewstamped):
    """Michael et al. 2017: messages from before a wipe still count. Replicas promise view 2, are
    wiped, recover into view 1 and commit x there; the old promises arrive, view 2 begins without x.

    (Needs more coincidence than a few thousand seeds have; tests/protocols/viewstamped tells it.)
    """

    def _is_of_an_old_life(self, message: DoViewChange) -> bool:
        return False


class ViewNotPersisted(Viewstamped):
    """The view-number is on disk only once the view is normal. A replica promises view 2 its log,
    restarts in view 1 and helps to commit x there; view 2 begins with the log as it was."""

    def _take_records(self) -> list[Any]:
        return [
            ViewState(record.last_normal_view, record.last_normal_view, record.lives)
            if isinstance(record, ViewState)
            else record
            for record in super()._take_records()
        ]


class CommitBeforeQuorum(Viewstamped):
    """§4.1: one PREPAREOK less than f commits. The two of five that have x fail, and the other
    three, a quorum, go on without it."""

    def quorum_number(self) -> int:
        if self.quorum <= 2:
            return self.log.last_index
        return sorted(peer.prepared for peer in self.others.values())[2 - self.quorum]


class StaleReadByDeposedPrimary(Viewstamped):
    """§6.3: the primary answers reads without asking whether it still is one. It is cut off, the
    others have moved on and committed a write; its clients still read the value before."""

    def ask_for_reads(self) -> None:
        if self.commit_number >= self.start_number:
            self._asked_reads, self._waiting_reads = self._waiting_reads, []
            self._asked_index = self.commit_number
            self._grant_asked_reads()


class ReadBeforeViewIsCommitted(Viewstamped):
    """A new primary answers reads before the log its view began with is committed. The old primary
    has answered for an operation in it; a read at the new one does not see that."""

    def lead(self) -> None:
        super().lead()
        self.start_number = 0


class KeepsUncommittedSuffix(Viewstamped):
    """§5.2: state transfer appends, and cuts nothing off behind the log of the view. The old
    suffix now looks as if it was of this view, and the next view change prefers the longer log."""

    def cut_behind(self, op_number: int, source: str) -> None:
        return


class DropsBeforeItFetches(Viewstamped):
    """§5.2 to the letter: entering a later view, a replica first drops all after its commit-number.
    It had helped to commit x, did not know it yet, and crashes before x is here again: of the
    quorum that had x one is left, and the other two of three begin the next view without it."""

    def transfer_from(
        self, source: str, *, target: int | None = None, target_view: int | None = None
    ) -> None:
        entering = self.status_ is Status.VIEW_CHANGE and self._transfer is None
        if entering and self.log.last_index > self.commit_number:
            self.truncate(self.commit_number, source)
        super().transfer_from(source, target=target, target_view=target_view)


class RestartedPrimaryLeadsOn(Viewstamped):
    """A primary that restarts goes on with its view. A PREPARE had left before it was on its disk:
    the same op-number of the same view is given to two requests."""

    def resign(self, reason: str) -> None:
        if reason == "it restarted":
            self.lead()
        else:
            super().resign(reason)


BUGS = {
    bug.name: bug
    for bug in (
        Bug("view_change_forgets_the_log", LogForgotten),
        Bug("longest_log_without_last_normal_view", IgnoresLastNormalView),
        Bug("wiped_replica_answers_at_once", WipedReplicaAnswers),
        Bug("empty_majority_founds", EmptyMajorityFounds, first=50),
        Bug("view_not_persisted", ViewNotPersisted),
        Bug("prepare_ok_before_durable", persist_before_send=False),
        Bug("commit_before_quorum", CommitBeforeQuorum),
        Bug("no_client_table", machine=NoClientTable),
        Bug("stale_read_by_deposed_primary", StaleReadByDeposedPrimary, first=150),
        Bug("read_before_view_is_committed", ReadBeforeViewIsCommitted),
        Bug("keeps_uncommitted_suffix", KeepsUncommittedSuffix),
        Bug("drops_before_it_fetches", DropsBeforeItFetches),
        Bug("restarted_primary_leads_on", RestartedPrimaryLeadsOn),
        Bug("clocks_drift_beyond_the_lease", clock_drift=0.6, first=80),
    )
}
