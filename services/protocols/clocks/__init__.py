"""Logical clocks: what an event's timestamp may say about cause and effect, without a true clock.

Theory of operation
-------------------
**Happened before** (Lamport, *Time, Clocks, and the Ordering of Events in a Distributed System*,
1978) is the smallest relation → in which a → b when a came before b in one process, or a is the
sending of a message and b its receipt, and which is transitive. Only what happened before an event
can have caused it. Two events of which neither happened before the other are *concurrent*.

Wall clocks do not know it: a message that takes one millisecond from a node whose clock is 200 ms
fast arrives, by the clocks, before it was sent. Four timestamps do, at four prices:

    lamport.py         a → b implies L(a) < L(b).                     one number
    vector.py          a → b if and only if V(a) < V(b).              a number per process
    version_vector.py  the same between versions of one datum.        a number per replica
    hybrid.py          a → b implies H(a) < H(b), and H is close      one number and a small counter
                       to wall time wherever clocks are

**Invariant, of each clock.** A process that takes its timestamps from one clock, and lets the clock
`receive` the timestamp of every message before it goes on, never issues a timestamp that is not
greater than all those that it has issued or received.

*What a number cannot say.* L(a) < L(b) does not mean that a happened before b: they may be
concurrent. Charron-Bost (1991) showed that no fewer than one number per process can tell concurrent
events apart in general, which is why vectors grow with the number of processes.

Pure values and pure functions of them; a wall clock's reading is an argument. Timestamps are plain
numbers, tuples and dicts, so that any codec can carry them.
"""

from __future__ import annotations

from services.protocols.clocks.hybrid import ClockTooFarAhead, HybridClock, Timestamp
from services.protocols.clocks.lamport import LamportClock
from services.protocols.clocks.vector import Order, VectorClock, compare, merge
from services.protocols.clocks.version_vector import Version, context_of, reconcile, update

__all__ = [
    "ClockTooFarAhead",
    "HybridClock",
    "LamportClock",
    "Order",
    "Timestamp",
    "VectorClock",
    "Version",
    "compare",
    "context_of",
    "merge",
    "reconcile",
    "update",
]
