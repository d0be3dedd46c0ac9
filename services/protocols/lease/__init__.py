"""Leader election by a lease on a compare-and-set register, and the fence that makes it safe.

Sources: Gray and Cheriton, *Leases: An Efficient Fault-Tolerant Mechanism for Distributed File
Cache Consistency* (1989), cited as "leases §"; Burrows, *The Chubby lock service* (2006), cited as
"Chubby §"; Kleppmann, *How to do distributed locking* (2016). The register is any linearizable one
whose versions only grow: a key of `services/kv`, where a version is the index of the write.

Theory of operation
-------------------

**Invariants**

- *One holder*: at any instant at most one elector `holds`, **as long as no clock runs more than
  `1 + drift_max` times as fast as another**.
- *Tokens grow*: of two acquisitions, the later has the greater token. This one needs no clock.
- *Fence*: what a resource admits has tokens that never fall. This one needs no clock either.

**The lease.** The register holds the name of the holder. Whoever wants the lease writes its name
*if the register is still at the version it saw* (compare-and-set); to renew is the same write
again. It is never said until when the lease runs: an instant means nothing on another machine's
clock. Both sides measure a duration on their own:

- the holder counts `term_s` from when it **sent** the write that succeeded,
- a contender counts `term_s × (1 + drift_max)` from when it first **saw** that version.

The write took effect after it was sent and before it was seen, so the contender's time ends last
(leases §3.1: the client's term is the server's, shortened by the messages' time and the clocks'
uncertainty). The contender needs no clock that agrees with the holder's, only one that runs at
about the same rate.

**The token** is the version of the write by which the holder *became* the holder. Versions grow, so
tokens do.

**The fence.** Between the moment at which a holder looks at its clock and the moment at which its
act arrives, anything may happen: a pause, a full network buffer, and no look at the clock, however
late, comes after it. So the lease alone keeps two from acting at once only as well as processes run
and clocks tick. Each act therefore carries the token, and the resource refuses any that is lower
than the greatest it has admitted (Chubby §2.4: "the most recent sequencer that the server has
observed").

**What follows from an answer that never came.** The write may have happened, or may happen yet.
The elector goes on as what it was (a holder until its term ends, counted from the last write that
was *acknowledged*) and looks at the register before it writes again. It may find its own name
there: then that is the version to replace, at once, since nobody else counts on that record.

Where it departs from the papers: the store grants nothing and keeps no time (in Chubby and in
leases §2 the server does); a lease is a convention among those who use the register, as in the
lease-based election of Kubernetes' client-go. There is no lock-delay (Chubby §2.4), which helps
servers without a fence and is right only most of the time.

Events: acquire (token), lose (token, reason: "expired", "taken", "fenced" or "resigned").
"""

from __future__ import annotations

from services.protocols.lease.elector import Action, Elector, Look, Record, Write
from services.protocols.lease.fence import Fence

__all__ = ["Action", "Elector", "Fence", "Look", "Record", "Write"]
