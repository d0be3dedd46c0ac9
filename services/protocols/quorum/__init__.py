"""Quorums without a leader: the store of *Dynamo* (DeCandia et al., SOSP 2007).

Theory of operation
-------------------
Invariants first.

1. **A dot names one write**: two versions with the same dot are the same. A coordinator raises its
   counter on disk before anybody hears of the version.
2. **Nothing is forgotten that was not replaced**: a context covers a dot only if that version is
   still there or its replacement's writer had seen it (`versions.py`). So no acknowledged write is
   lost, as long as one of the disks that acknowledged it is there. Last-write-wins gives this up.
   (A node whose disk was lost comes back under its own name, and with another disk: dots are named
   after that, or the others would take its new writes for known, or two values for one.)
3. **R + W > N: each read meets each write** that was acknowledged before it began, for the sets of
   homes that answered the two have a node in common. Only with strict quorums: a hint counts
   towards W, and no read looks for it. And only of disks that stay: a home whose disk was lost
   counts towards R before it has got back what it had acknowledged. (Cassandra has a node that
   replaces a lost one stream its data before it answers reads.)
4. **Replicas converge** once they hear each other: merging is commutative, associative and
   idempotent.

Any home of a key coordinates (§4.5): it writes its own copy, sends it to the other homes and
answers its client after W copies are on disk. A read asks all homes and answers after R, with every
version that none of the others replaces (§4.4): *siblings*, which the client merges and writes back
with the context that it was given. Three things spread what not everybody has: *read repair* (who
was behind is told when the answers are in), *hinted handoff* (§4.6: with sloppy quorums a node
further down the list of preference keeps the copy for one that is silent, and hands it over when it
is back), and *anti-entropy* by hash trees (§4.7, `merkle.py`), which alone reaches keys that nobody
reads.

Beside plain values it keeps *data types* (`data.py`): counters, sets and sequences, whose copies
merge by themselves.

This is no linearizable store, even with R + W > N: a write that was not acknowledged may be seen by
one read and not by the next, and concurrent writes become siblings. (Attiya, Bar-Noy and Dolev 1995
get there by writing back what a read is about to answer.)

Departures from the paper: placement by rendezvous hashing; dotted version vectors in place of plain
version vectors, which made two writes by one client a false conflict; a node that is no home of a
key refuses to coordinate for it, where Dynamo's would as a stand-in (it could give out a dot twice
once it has handed over what it knew of the key). Tombstones are kept for ever. Membership is fixed.
"""

from services.protocols.leaderless import Ready
from services.protocols.quorum.core import Quorum, Reply
from services.protocols.quorum.messages import MESSAGES, RECORDS
from services.protocols.quorum.versions import Siblings, Version

__all__ = ["MESSAGES", "RECORDS", "Quorum", "Ready", "Reply", "Siblings", "Version"]
