"""A causally consistent store: *Don't Settle for Eventual* (COPS; Lloyd, Freedman, Kaminsky and
Andersen, SOSP 2011).

Theory of operation
-------------------
Every node keeps every key, and answers reads and writes from its own copy (§4.2): no operation
waits for another node, unless its client came from one that knew more. What a client has read and
written is its *context*, here a `Session`, which travels with its requests. Invariants first.

1. **A dot names one write**: (origin, number), where `number` counts what the origin has accepted.
   It is on the origin's disk before anybody hears of it, and the origin is named after this disk: a
   node that has lost it counts from 1 again, and under its own name its first write would be taken
   for one that all others have.
2. **What a node has applied is causally closed**: a write is applied once everything that its
   `depends` names is (§4.3, `dep_check`), and a node's writes in their order. So no reader sees an
   effect before its cause, whichever replica it asks.
3. **A session never goes back**: a node that has not applied what the session has seen keeps the
   request waiting until it has. Who has waited for too long withdraws: definite, nothing happened.
4. **Replicas converge**: of two writes of a key the greater version stays (§3.2, convergent
   conflict handling), wherever they arrive in whichever order. A version is a Lamport time, then
   the origin's name (§4.1): it is greater than all that the write depends on, so that a write
   replaces what its client has seen, and never the other way round.

What a client asks for is how much of its context counts (`Level`):

- `causal`: all of it, for reads and for writes.
- `session`: reads wait for all of it, writes depend on the session's own earlier *writes* alone.
  That is read your writes, monotonic reads and monotonic writes; what is given up is *writes follow
  reads* (Terry et al. 1994): an answer may be seen before what it answers. All four together are
  causal consistency (Brzezinski, Sobaniec and Wawrzyniak 2004).
- `eventual`: none of it.

A level is a promise to those who use it, about the writes of those who do: a causal reader of a
write that was made with `eventual` may see it before its cause, for nobody has told what that is.

Replication: the origin sends a write to every peer at once, and again until the peer has said that
it has it (`Have`, a version vector). *Anti-entropy*: now and then a node tells a peer what it has
and is sent the rest, whoever wrote it; so a write goes round a broken link, and survives the
silence of its origin. A write that came twice is known by its dot. What all have is not kept for
sending any more, nor is more than `LOG_BYTES_MAX` of one origin: who needs earlier ones, because it
was away or its disk is new, fetches the state of another node, of one moment (`refill.py`).

What a node had acknowledged and sent to nobody is gone with its disk. A session that has seen it
is kept waiting everywhere from then on, and refused: it has to begin anew.

Departures from the paper
-------------------------
- *Dependencies are version vectors* (as in Ladin et al.'s lazy replication, 1992) and not a list of
  the nearest (key, version). Where a later version of a key counts for an earlier one, a history
  goes wrong with that list: y=1 depends on x=1, z=1 depends on y=1 alone, its nearest. A replica
  with a later, concurrent y=2 takes y=1 for dealt with, shows z=1, and x is still nothing. A vector
  says which writes *were applied*. Its price is what it does not tell apart: all of an origin's
  earlier writes count as causes, so that one that waits holds back those behind it.
- A node is a whole data centre: keys are not spread over the servers of a cluster.
- No transactions (COPS-GT's `get_trans`): reads of two keys may be of two moments.
- Tombstones are kept for ever, and so is an entry of the vector for each disk that ever wrote.
  Membership is fixed.
"""

from services.protocols.causal.core import Causal
from services.protocols.causal.messages import MESSAGES, RECORDS, Write
from services.protocols.causal.sessions import LEVELS, Level, Reply, Session

__all__ = ["LEVELS", "MESSAGES", "RECORDS", "Causal", "Level", "Reply", "Session", "Write"]
