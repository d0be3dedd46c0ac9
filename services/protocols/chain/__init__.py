"""Chain replication with apportioned queries, its configuration master embedded.

Sources: van Renesse and Schneider, *Chain Replication for Supporting High Throughput and
Availability*, OSDI 2004, cited as §; Terrace and Freedman, *Object Storage on CRAQ*, USENIX ATC
2009, cited as "CRAQ §". Names are theirs: head, tail, predecessor, successor, Hist, Sent, ack.

Theory of operation
-------------------

Updates enter at the *head*, which puts them in order, and are *forwarded* from server to server.
When the *tail* has one, everybody has it: that is when it is acknowledged, and the acknowledgement
goes back the way it came. Who has it applies it; the head, where the client waits, answers (in the
paper the tail does).

**Invariants** (§3; tests/simulation asserts them after every step of a whole cluster):

- *Update Propagation*: for i ≤ j in the chain, Hist_j is a prefix of Hist_i.
- *Inprocess Requests*: Hist_i is Hist_j and what i can still send to its successor j (Sent_i: here
  the log behind `match_index`).

**The paper's world and this one.** The paper assumes fail-stop servers, whose failure is found out
without error, and a master that never fails. Here servers are paused and cut off, so one that is
taken for failed may be well, not know of it, and have clients. Three rules make a false suspicion
harmless:

1. *The master is a Raft* (`services/protocols/raft`, a member on every server) whose log holds one
   `Configuration` after another: so there is one chain in an epoch. A majority of all servers makes
   it; a chain that stands needs no master.
2. *A server obeys the last configuration it knows*, and listens to its predecessor of that very
   epoch only. The epoch is on its disk before it acts in it, and it never goes back.
3. *A chain begins with servers that have everything.* A configuration is made of survivors of the
   one before it, in their order, and then those that are new (`joining`). Survivor is who was in
   that chain, and if it was new there, had *synced*: it had all that the head had when the epoch
   began (`Forward.start`). To leave is to lose that; a server that returns is new.

*Why nothing acknowledged is lost.* An update is acknowledged in epoch e when its tail has it; it
has then passed through every server of that chain, each of them in epoch e. So a survivor that has
moved on to a later epoch either has the update, or will never pass it on in e, and then it is never
acknowledged there. By rule 3 the head of the next epoch is such a survivor, and it keeps its log.
No message to the excluded is needed, nor any waiting for them: that is the fencing.

**Reads** (reads.py), at any member that has synced. It notes where its log ends: everything
acknowledged is in there. Then it asks all servers whether they know of a later configuration. One
that was decided before the read began is in the master's log at a majority, so if a majority knows
of none, there was none, and no update that this server lacks can have been acknowledged. The read
is answered when what was noted is acknowledged: at the tail at once, elsewhere when it is *clean*
(CRAQ §2.3, by log instead of by key: who is dirty waits for the acknowledgement that is on its way
instead of asking the tail for a version).

**Failures** (§3). The master takes for failed who has not answered its heartbeats for
`election_ticks`, or of whom the predecessor reports that it is silent (two neighbours may be cut
off from each other and from nobody else). The head: its successor is the new one; what only the old
one had was never acknowledged, and is gone (or, if the old one had it forwarded, goes on). The
tail: its predecessor is the new one, and what it has is acknowledged by that. Another: its
neighbours join, and what was in process is sent again from where their logs meet.

**Joining** (§3, "extending a chain"). The tail sends its log, or the state of its state machine
where the log is gone, to all who are outside. Who lacks little is made the new tail: nothing is
acknowledged before it has the rest. The master may not shorten the chain below a majority; if too
few survive, it fills up with who is alive, though they lack much, and writes wait for them. So what
is acknowledged is on a majority of the disks.

**Ordering rule.** A server has an update once it is on its disk; only then it is forwarded or
acknowledged. Nothing goes `early`: a head that forgets an update that others have would give its
place, in the same epoch, to another.

**Records.** `Entry` (`term`: the epoch of the head that took it in), appended; if its index is not
above the last, the log ends just before it first. `Configuration`: the epoch entered. `Snapshot`:
forget all that came before. Of the master: `HardState`, `MasterEntry`, `MasterSnapshot`.

**Retries.** An update that its client repeats at the new head is applied once: the table of
idempotency keys is part of the replicated state (`services/protocols/sessions.py`).

What it costs
-------------

- A write takes 2(n - 1) messages, as in Raft, but the head sends it to one other instead of to all.
  And it takes 2(n - 1) delays and n disks *in a row*, where Raft takes 2 and 1; the slowest of all
  servers sets the pace, not the median.
- One server that fails stops all writes until it is excluded (with a majority protocol only a
  leader does): an election timeout, and one more if the master went with it, for a new one gives
  everybody a timeout to answer.
- A chain that has to be filled up keeps its writes waiting for whole state transfers, one after the
  other down the chain, even if somebody lacks less: the master does not know who lacks how much.
- A read asks a majority, as ReadIndex does in Raft. In the paper it is local to the tail: that is
  sound only where whoever is excluded is known to have stopped, or clocks are trusted. There is no
  lease here: a read that asks for one is served like any other. But any member serves it.

Where it departs from the paper
-------------------------------

- All of the above: the embedded master, epochs, joining, reads. The paper's two forms of Sent and
  of the pending set are one log, with indexes into it.
- The log of who is new may hold what an earlier head has left. `verified` is the prefix that its
  predecessor has confirmed in this epoch: nothing behind it is forwarded or acknowledged.
- A heartbeat on each link finds what was lost: an acknowledgement comes when something is
  acknowledged by the tail, and in answer to a heartbeat, not for each message.
- Whoever was wiped is outside of what this can bear, as with Raft: its promises are gone.

Reading order: messages, state, links, transfer, reads, master, core. A kind of message arrives at a
method `on_<message>`.

Events: enter_epoch, become_leader (the head), step_down, truncate_log, send_snapshot,
install_snapshot, decide_chain; and those of the master's Raft, with `master_` before their names.
"""

from __future__ import annotations

from services.protocols.chain.core import Chain
from services.protocols.chain.messages import MESSAGES, RECORDS
from services.protocols.chain.state import Limits

__all__ = ["MESSAGES", "RECORDS", "Chain", "Limits"]
