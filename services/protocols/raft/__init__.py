"""Raft for a fixed membership.

Sources: Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm* (extended
version), cited as § and figure; Ongaro, *Consensus: Bridging Theory and Practice*, cited as
"dissertation §". Names are the paper's.

Theory of operation
-------------------

**Invariants** (figure 3). Everything else follows from them, and tests/simulation asserts each of
them after every step of a whole cluster:

- *Election safety*: at most one leader in a term. Each server votes once in a term, and remembers.
- *Leader append-only*: a leader only appends to its log.
- *Log matching*: two logs that hold an entry of the same index and term are equal up to there.
- *Leader completeness*: what is committed is in the log of every leader of a later term.
- *State-machine safety*: no two servers apply different entries at one index.

**Ordering rule.** What a message claims must be on stable storage before it leaves: the vote before
the answer that grants it, the entries before the answer that counts them, the leader's own entries
before they are counted for it. So all that happens between two calls of `ready()` comes out as one
`Ready`: records first, then messages, then what was committed (`services/protocols/core.py`). The
records of one list are written in order, and any prefix of them is a state that could have been;
except that a list with a `Snapshot` replaces the storage and must take effect as a whole.

**Records.** `HardState(term, vote)`, the last one counts. `Entry`: appended; if its index is not
above the last one, the log ends just before it first. `Snapshot`: forget all that came before.

**Time** is counted in calls of `tick()`; a node campaigns after a random 1 to 2 `election_ticks`
without a leader.

**Batching.** `propose` appends; `ready()` builds one AppendEntries per follower from all that came
in. Under load the batch grows by itself. Entries are pipelined: `next_index` advances when a
message is sent, and a rejection takes it back (progress.py).

**Reads** (reads.py): ReadIndex by default, a lease if the caller trusts the clocks.

Where it departs from the paper
-------------------------------

- *Pre-vote* (dissertation §9.6), always on: a campaign first asks who would vote.
- *Check quorum* (dissertation §6.2): a leader that hears no majority for an election timeout steps
  down, and a server that hears a leader neither votes nor adopts the candidate's term (§4.2.3). A
  restarted server counts as one that hears a leader for its first `election_ticks`: it may have
  acknowledged a heartbeat that a lease stands on.
- *AppendEntries* and its response carry the heartbeat round, and a rejection carries the conflict
  hint that §5.3 describes in words. Below its commit index a follower does not compare terms: by
  leader completeness it would find them equal, and it may have compacted them.
- *InstallSnapshot* answers name the next byte wanted, so lost, repeated and reordered chunks do no
  harm. If the follower's log already holds the last included entry it commits up to it instead of
  replacing its state machine (figure 13, rule 6).
- *Commit index* reaches followers with the next entries or heartbeat, not in a message of its own.
- *Leadership transfer* gives the lease up for the rest of the term (transfer.py).
- *A follower whose storage was wiped* is outside Raft's assumptions. The leader notices, says so
  (event `log_lost`) and fills it again; a quorum of such servers can lose committed entries.

Reading order: messages, state, elections, follower, log, progress, leader, reads, snapshots,
transfer, core. A role's messages arrive at methods `on_<message>`.

Events: become_follower, become_pre_candidate, become_candidate, become_leader, follow, grant_vote,
reject_vote, step_down, truncate_log, send_snapshot, install_snapshot, lease_lost, transfer_begin,
transfer_timeout_now, transfer_abort, log_lost.
"""

from __future__ import annotations

from services.protocols.raft.core import Raft
from services.protocols.raft.messages import MESSAGES, RECORDS
from services.protocols.raft.state import Limits, Role

__all__ = ["MESSAGES", "RECORDS", "Limits", "Raft", "Role"]
