"""Multi-Paxos with a distinguished proposer, for a fixed membership; and the Synod by itself.

Sources: Lamport, *Paxos Made Simple* (cited as PMS §), the single-decree algorithm, in synod.py;
van Renesse and Altinbuken, *Paxos Made Moderately Complex* (ACM Computing Surveys 47(3), cited as
PMMC §), the many-slot one, everywhere else. Names are the papers'.

Theory of operation
-------------------

**Invariants** (PMMC §2). Everything else follows from them, and tests/simulation asserts them over
the whole cluster after every step:

- *R1*: no two different commands are decided for the same slot. *R2*: all slots below the next one
  to be applied are decided. *R3*: the state is the result of applying them in order. *R4*: the next
  one to be applied never goes back. (*R5* is about reconfiguration: there is none.)
- *A1*: an acceptor adopts strictly increasing ballots. *A2*: it accepts ⟨b, s, c⟩ only if b is the
  ballot it has adopted. *A3*: it never takes an acceptance back, but for what is decided (below).
- *A4*: for a ballot b and slot s, at most one command c is accepted by any acceptor.
- *A5*: if a majority has accepted ⟨b, s, c⟩, and anybody ⟨b', s, c'⟩ with b' > b, then c = c'.
- *C1*: for any b and s at most one commander is spawned. *C2*: as A5, for what is proposed.

**Protocol.** A ballot (round, leader) belongs to one leader. Its *scout* asks all acceptors to
adopt the ballot (p1a), for all slots at once; once a majority has, the leader is *active*: it
proposes, in each slot that may be decided, the value accepted in the highest ballot that the
majority told of (p1b), and a no-op in the gaps between them. From then on a command costs one
round trip: it gets the next slot, a *commander* asks the acceptors to accept it (p2a), and
accepted by a majority (p2b) it is decided. Slots inside a window go on side by side and are
decided in any order; *replicas* apply decisions in the order of slots. A leader that hears of a
higher ballot is *preempted*.

**Ordering rule.** What a message claims is on stable storage before it leaves: the adopted ballot
before the p1b, the acceptance before the p2b, a leader's own acceptance before it is counted, a
ballot before its p1a (or it could be taken twice, with two values in one slot: A4). `Ready.early`
are p2a alone, and only while the ballot is on record: the argument is at `Paxos._propose_early`.

**What a value is.** An `Entry`: its index is the slot, its `term` the ballot in which it was
*first* proposed, as a number (ballots.py). A later ballot that proposes it again leaves that as it
is: else its client, waiting for (slot, ballot), would be told "overwritten" of a command that was
decided. The ballot of an acceptance stands beside the entry (`PValue`, `Accepted`). So terms may
fall along the log.

**Records**, any prefix of which is a state that could have been: `Promised(ballot)`;
`Accepted(ballot, entries)`; `Learned(entries)`, decisions from another replica; `Decided(slot)`, a
mark that rides along; `Snapshot`, which replaces all before it.

**Reads** (reads.py): a quorum's confirmation of the ballot by default, a lease if the caller
trusts the clocks. **Exactly once** is the state machine's (services/protocols/sessions.py): PMMC's
replica knows a repeated command by its (client, cid) among the decisions, which garbage collection
takes away; a table in the state goes along with each snapshot.

Where it departs from the papers
--------------------------------

- *Colocation, as PMMC §4*: replica, leader and acceptor are one node with one log of records.
  Clients' requests go to the leader, who gives out slots; PMMC's replicas give them out, and may
  collide.
- *A decision is announced by the slot up to which all are decided*, in the next p2a, and not one
  by one. An acceptor that accepted in that ballot has the value; whoever lacks it asks
  (replica.py).
- *A3 and garbage collection (PMMC §4)*: of a decided slot the acceptor keeps the decision, and
  in time only a snapshot. Instead of pvalues it tells the scout up to where all is decided, and
  the scout learns that much before it counts the promise. PMMC collects what f + 1 replicas have
  learned; here a decision on a majority's disks stays there until it is in a snapshot, which any
  node can send.
- *Phase 0* (after Raft's pre-vote): a scout first asks who would promise, and an acceptor that
  hears a leader would not, and does not. So a node that is deaf one way deposes nobody. The leader
  steps down when no majority answers for an election timeout. PMMC's leaders ping the one that
  preempted them.
- *Timeouts* are random, with PMMC §3's additive and multiplicative steps (scout.py).
- *Lost messages* are sent again by the heartbeat; PMMC assumes reliable links.
- *An acceptor whose storage was wiped* is outside Paxos' assumptions: it may vote against its own
  promises. Nothing here notices.

Reading order: synod (by itself); messages, ballots, slots, state, acceptor, scout, commander,
replica, reads, core. A message arrives at the method `on_<message>`.

Events: become_follower, become_pre_candidate, become_candidate (a scout is out), become_leader (its
ballot is adopted), follow, grant_vote (a promise; `pre_vote`: phase 0), reject_vote, step_down,
send_snapshot, install_snapshot, lease_lost. Their `term` is a ballot as a number.
"""

from __future__ import annotations

from services.protocols.paxos.core import Paxos
from services.protocols.paxos.messages import MESSAGES, RECORDS
from services.protocols.paxos.state import Limits, Role

__all__ = ["MESSAGES", "RECORDS", "Limits", "Paxos", "Role"]
