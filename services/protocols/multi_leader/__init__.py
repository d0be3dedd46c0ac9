"""Multi-leader replication: every node takes writes, and tells the others of them afterwards.

This is how databases replicate between data centres that must not wait for each other: MySQL's
group replication in multi-primary mode, NDB's and BDR's (PostgreSQL) conflict resolution, CouchDB,
Active Directory; and every calendar that works without a network. The book chapter is Kleppmann's
*Designing Data-Intensive Applications*, chapter 5; the mechanism is Bayou's (Terry et al., SOSP
1995) and Golding's timestamped anti-entropy (1992): logs by origin, version vectors, repetition.

Theory of operation
-------------------
Invariants first.

1. **A dot names one write.** A leader numbers its writes, and the number is on its disk before
   anybody hears of the write. A log is named after the *disk* that holds it, not after the node: a
   node whose disk was wiped begins another log. (Under its old name it would give number 1 a second
   time, and whoever has the first one would take the second for known.)
2. **A node has a prefix of every log**, so one number for each log says all that it has:
   its *vector*. What comes twice, or before what precedes it, changes nothing.
3. **The last write wins, the same one everywhere.** Of all writes of a key that a node has, it
   shows the one with the greatest hybrid timestamp (`services/protocols/clocks/hybrid.py`; ties by
   dot). To choose the greatest is commutative, associative and idempotent, hence nodes with equal
   vectors have equal values.
4. **Who overwrites what they could see wins.** A leader dates a write later than all that it has:
   with wall clocks alone, a leader whose clock is slow could not overwrite what it shows.
5. **A conflict is told.** With each write travels what its leader had of the key (`seen`, a version
   vector). Two writes neither of which has seen the other are a conflict: the loser's writer was
   told "ok" and nobody will ever read it. That is counted and shown at the node where the two meet;
   the same pair may meet at several.

A write is acknowledged once it is on its own leader's disk: it waits for no other node, and can be
made on either side of a partition. The price:

- what a leader had acknowledged and not shipped is out of reach while the leader is down, and gone
  if its disk is. (Not so after single-leader failover, where the old leader's surplus is thrown
  away: here it is shipped when the leader is back.)
- last-write-wins loses updates silently, but for the count. Two withdrawals from one account made
  at two leaders both succeed: what must hold *across* writes (a unique name, a balance above zero)
  cannot be kept by leaders that do not ask each other.
- one leader with a clock far ahead wins all conflicts until the others' clocks have caught up.

Shipping. A write goes at once to those that its leader ships to, once. At every *look*, a node
sends each of them again what was here at the look before and is lacking there still: the same
rule retransmits what was lost, relays what a dead leader had told only to some, and feeds who was
away. `Have` is acknowledgement and heartbeat, tells a node's vector, and is repeated; to believe
an old one only costs messages. What all have is dropped from the logs. A node that lacks what a log
no longer has (it was away too long, or its disk is new) fetches the other's whole state, piece by
piece, and takes on the vector that the other had at the *first* piece when it has the *last* one.

Topologies. All-to-all: each ships its own log to everybody, so one dead node holds up nobody, but a
write may overtake the one that it replaces (4 and 5 take care of it). Ring: each ships all logs to
its neighbour; it takes fewer messages, and one dead node stops the news.

Followers. With `leaders` set, only so many nodes, the first in id order, take writes; the others
point to them.

Tombstones are kept for ever, and so is an entry of the vector for each disk that ever wrote.
Membership is fixed.
"""

from services.protocols.multi_leader.core import TOPOLOGIES, MultiLeader, Reply
from services.protocols.multi_leader.messages import MESSAGES, RECORDS
from services.protocols.multi_leader.versions import State, Write

__all__ = ["MESSAGES", "RECORDS", "TOPOLOGIES", "MultiLeader", "Reply", "State", "Write"]
