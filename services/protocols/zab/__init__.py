"""Zab, ZooKeeper's atomic broadcast, for a fixed ensemble.

Sources: Junqueira, Reed and Serafini, *Zab: High-performance broadcast for primary-backup systems*
(DSN 2011), cited by its steps (f.1.1: the first of the follower in phase 1; l.2.2: the second of
the leader in phase 2); Medeiros, *ZooKeeper's atomic broadcast protocol: Theory and practice*
(2012), for phase 0 and for what ZooKeeper does otherwise. Names are theirs.

Theory of operation
-------------------

**Invariants.** tests/simulation/zab.py asserts each after every step of a whole ensemble:

- *One primary in an epoch*: at most one leader gets beyond phase 1 with an epoch.
- *Prefix of histories*: two histories that hold the same zxid are equal up to it.
- *Integrity*: what is delivered was proposed by some primary.
- *Total order* and *agreement*: all deliver the same transactions, in the same order.
- *Local primary order*: those of one primary are delivered in the order in which it proposed them;
  *global primary order*: those of an earlier epoch before those of a later one.
- *Primary integrity*: before a primary proposes anything, it has delivered all that was ever
  delivered of earlier epochs. (This is what a state machine whose commands build on each other
  needs, and what running Paxos on several positions at once does not give.)

Two numbers on disk hold it up. `accepted_epoch` is a *promise*: nothing older will be accepted any
more. `current_epoch` says whose history this is: the last leader that this node was made equal to.

**The phases.** A node looks for a leader, then goes through phases 1 to 3 with it; it returns to
phase 0 when the leader falls silent, and a leader when it hears no quorum.

    0 election          votes for (currentEpoch, lastZxid, id); a quorum agrees on who is to lead
    1 discovery         CEPOCH (what I have promised) → NEWEPOCH (an epoch later than all those of
                        a quorum) → ACK-E (the promise; currentEpoch; what my history is)
                        With a quorum's promises no earlier leader can commit anything any more,
                        and what it did commit is in the most recent of their histories
    2 synchronisation   TRUNC, DIFF or SNAP, NEWLEADER → ACK-LD (equal to you, on disk) → COMMIT-LD
                        With a quorum's ACK-LD the initial history is committed as a whole: whoever
                        is elected now has this currentEpoch, or has heard of who has
    3 broadcast         PROPOSE → ACK (a quorum, on disk) → COMMIT, in the order of the zxids

**Why currentEpoch comes first in the comparison.** A proposal of epoch 2 may be at a quorum without
being committed, and a leader of epoch 3, whose initial history lacks it, may have come and gone
(Raft's figure 8). Whoever acknowledged that leader has the more recent history, though a shorter
one. Hence also: nothing of an older epoch is committed by counting, before ACK-LD.

**Ordering rule.** What a message claims is on stable storage before it leaves. All that happens
between two calls of `ready()` comes out as one `Ready`, records first. Records stand in the order
in which they came about, and any prefix of them is a state that could have been; a list with a
`Snapshot` replaces the storage and must take effect as a whole. Within synchronisation the history
is written first and currentEpoch last: the other way round a crash leaves a node that claims a
history which it does not have (ZOOKEEPER-4643), and if ACK-LD goes out before the history is
written, so does a crash after it (ZOOKEEPER-4646).

**Records.** `Epochs(accepted_epoch, current_epoch)`, the last one counts. `Entry`: the next
transaction. `Truncate`: the history ends there. `Snapshot`: forget all that came before.

**Reads** (reads.py): linearizable by a round of pings that a quorum answers. No lease.

**Early messages** are the leader's PROPOSEs alone (core.py gives the argument): they say nothing of
the leader's own disk, and the leader never leads that epoch again.

Where it departs from the paper
-------------------------------

- *A zxid's counter is the position in the history* (`Entry.index`, with the epoch as `Entry.term`)
  and does not begin again with each epoch. Zxids are compared by epoch, then counter; within an
  epoch both count by one; so the order is the same, and an index names a version for clients.
- *The channels are not FIFO.* The paper, and ZooKeeper with TCP, rely on messages of a channel that
  arrive in order or not at all. Here each says where it belongs (`prev`, `counter`), a follower
  says when there is a gap, and what was lost is sent again. ACK and COMMIT are therefore for all up
  to a zxid, which batches them as well.
- *The initial history is the leader's own* (as ZooKeeper's): the election finds the node that has
  the most recent one, so it need not be fetched. ACK-E is checked all the same: a follower with a
  more recent history is not counted, and a leader that cannot do without it goes back to phase 0.
- *ACK-E carries the last zxid of each epoch* in place of the history: two that share an epoch share
  all before it, so the leader knows where they part, and whether to send TRUNC, DIFF or SNAP. (From
  the last zxid alone, as ZooKeeper does it, that cannot always be told.)
- *The history of NEWLEADER comes before it*, in messages of its own, and is accepted bit by bit,
  not atomically. Until NEWLEADER currentEpoch is the old one; why any prefix does no harm stands
  in follower.py. NEWLEADER names what must be there by then.
- *A promise repeated after a crash is none.* Only the epoch is on disk, not to whom it was
  promised. A follower that had promised e' before is brought up to date in e', but not counted (as
  in ZooKeeper), or two leaders might share an epoch.
- *A leader that meets a later promise resigns.* A follower cannot follow an epoch older than its
  promise, and ZooKeeper's would be left out until the next election.
- *Election*: a node stands only while it hears a quorum, and votes only for whom it hears itself
  (election.py). So a node that has gone deaf neither deposes a leader, which it cannot anyway, for
  those who follow do not vote, nor is it elected for its long history again and again.
- *A follower whose storage was wiped* is outside Zab's assumptions. The leader notices, says so
  (event `log_lost`) and fills it again; a quorum of such nodes can lose what was committed.
- *No primary-backup state changes*: what is ordered are commands, and each node carries them out.
  Exactly-once by idempotency key is in the state machine (`services/protocols/sessions.py`), hence
  in its snapshots. ZooKeeper keeps its sessions in the replicated state too, but does not look a
  repeated request up: its clients see "connection loss" and have to find out for themselves.

Reading order: messages, history, state, election, follower, learner, leader, synchronisation,
reads, core. Messages arrive at methods `on_<message>`.

Events: look, become_follower, become_candidate (a prospective leader), become_leader (phase 3),
accept_epoch, accept_leader, follow (phase 3), step_down, truncate_log, send_snapshot,
install_snapshot, log_lost.
"""

from __future__ import annotations

from services.protocols.zab.core import Zab
from services.protocols.zab.messages import MESSAGES, RECORDS
from services.protocols.zab.state import Limits, Phase, State

__all__ = ["MESSAGES", "RECORDS", "Limits", "Phase", "State", "Zab"]
