"""Viewstamped Replication for a fixed membership.

Sources: Liskov and Cowling, *Viewstamped Replication Revisited* (MIT-CSAIL-TR-2012-021), cited as
§; Michael, Ports, Sharma and Szekeres, *Recovering Shared Objects Without Stable Storage* (DISC
2017). Names are the paper's.

Theory of operation
-------------------

**Invariants** (§8). tests/simulation asserts each of them after every step of a whole group:

- *One primary in a view*, and it leads it once. Which replica follows from the view-number, round
  robin; when, from a quorum of DOVIEWCHANGE.
- *Log matching*: two logs that hold an entry of the same op-number and view are equal up to there
  (log.py). While its status is normal, a backup's log is a prefix of its primary's.
- *Committed operations survive into all later views*, at their op-number: whoever becomes normal in
  a view holds all that was committed in views before.
- *Promises are kept*: a replica takes part only if it has, on its disk, what its messages of any
  life have said. One that cannot know does not take part (recovery.py).

**Ordering rule.** What a message claims is on disk before it leaves: the entries before PREPAREOK,
the view-number before DOVIEWCHANGE, the life before RECOVERYRESPONSE. Records come out in the order
in which the state changed, and any prefix of them is a state that has been; a list with a
`Snapshot` replaces the storage and takes effect as a whole.

**The protocol in a page.** *Normal operation* (primary.py, backup.py): the primary gives requests
consecutive op-numbers and sends PREPARE; backups append in order, and answer PREPAREOK; an
operation that f backups have answered for is committed, with all before it; the next PREPARE or
COMMIT says so. *View change* (view_change.py): replicas that hear no primary agree by
STARTVIEWCHANGE to leave; each sends DOVIEWCHANGE with its v' (the last view in which its log was
complete), op-number and commit-number to the primary of the next view, which takes the log with the
largest (v', n) of f + 1, and tells it with STARTVIEW. *State transfer* (transfer.py): GETSTATE and
NEWSTATE bring whatever log is lacking. *Recovery* (recovery.py): a replica whose disk is empty
learns with a nonce from f + 1 others where the group is before it says anything else.

**Time** is counted in calls of `tick()`; a replica suspects its primary after a random 1 to 2
`election_ticks` of silence.

**Reads** (reads.py) at the primary: a quorum confirms it, or a lease if the caller trusts clocks.

Where it departs from the paper
-------------------------------

- *Disks.* The paper's replicas keep everything in memory and recover from each other, so a power
  cut that hits all of them loses everything. Here a replica writes before it sends, and one that
  restarts with its disk needs no recovery: it is in no other state than a slow one. The recovery
  protocol is for a disk that was *wiped*; it is the published one with the crash vector that it
  lacked, and with a rule for how a group begins.
- *STARTVIEWCHANGE is a suspicion*, made before the view-number moves, and a replica that hears its
  primary is not moved by it (the paper moves at the first such message). So a replica that is deaf
  in one direction deposes nobody, and leases hold. A primary that hears no quorum for
  `election_ticks` resigns, and says so: who hears it need not wait.
- *A primary that restarts resigns as well.* Its last PREPAREs may have left before they were on its
  disk (`Ready.early`), so it must not give out op-numbers in that view again.
- *DOVIEWCHANGE and STARTVIEW carry no log* but its last entry's name. §5.3 sends a suffix and lets
  the new primary ask for more; here it asks for all that it lacks, and mostly lacks nothing.
- *Entries remember the view in which they were proposed* (`Entry.term`), as log.py explains; the
  choice of a log goes by v' nonetheless. No no-op opens a view: who is normal in a view has its
  whole log, so older entries commit by count (Raft's figure 8 cannot happen), but reads wait until
  the log that the view began with is committed.
- *PREPAREOK answers COMMIT too*, and COMMIT carries the op-number: for reads, leases, the primary's
  watch over its quorum, and so that a lost last PREPARE is noticed.
- *The client table* (§4: a request-number per client, the last reply, kept by each replica as the
  operations execute) is the state machine's (`services/protocols/sessions.py`): a table of
  idempotency keys in log order, in every checkpoint. It answers the same question at the same
  place, without clients that register; it forgets by age, where the paper's keeps the last request
  of each client. The paper's primary drops a repetition before it is proposed; here it takes an
  op-number and is answered from the table when it is executed.
- *Founding* is not in the paper. View 0 is "none yet", view 1 that of the founding, which nobody
  leads, and view 2 the first one's. Reconfiguration (§7), witnesses (§6.1) and reads at backups
  (§6.3) are not here.

Reading order: messages, log, state, primary, backup, view_change, transfer, recovery, reads, core.

Events: become_recovering, found, recover, become_leader, become_backup, follow, start_view_change
(a suspicion), enter_view, choose_log, step_down, truncate_log, send_snapshot, install_snapshot,
lease_lost.
"""

from __future__ import annotations

from services.protocols.member import Limits
from services.protocols.viewstamped.core import Viewstamped
from services.protocols.viewstamped.messages import MESSAGES, RECORDS
from services.protocols.viewstamped.state import Status

__all__ = ["MESSAGES", "RECORDS", "Limits", "Status", "Viewstamped"]
