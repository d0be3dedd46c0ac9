"""Conflict-free replicated data types: replicas that take writes alone, and agree when they meet.

Sources: Shapiro, Preguiça, Baquero, Zawirski, *A comprehensive study of Convergent and Commutative
Replicated Data Types* (INRIA RR-7506, 2011), cited as "study §"; Bieniusa et al., *An optimized
conflict-free replicated set* (2012); Almeida, Shoker, Baquero, *Delta state replicated data types*
(2018), cited as "delta §"; Roh et al., *Replicated abstract data types* (2011), for the sequence;
Burckhardt, Gotsman, Yang, Zawirski, *Replicated data types: specification, verification,
optimality* (2014), cited as "specification": what each type must answer, told by visibility.

Theory of operation
-------------------

**Invariants**, for every type here (study §2.2, state-based objects):

- *Merge is a least upper bound*: commutative, associative, idempotent. So states may be sent in any
  order, twice, or by detours, and as long as everything arrives in some form, all end the same.
- *Updates only move up*: `state.merge(updated) == updated`. So a state that arrives late, from
  before an update, undoes nothing.
- *Convergence* follows from the two: replicas that have seen the same updates are equal.

**States are values.** Nothing here is changed in place: an update or a merge returns a new state,
and what was sent to a peer can't change on its way.

**Who may update.** `node` names the replica at which an update is made, and only *its own* latest
state may be updated under its name. Two updates made under one name from the same old state (a
replica that restarted from a backup) would get the same identity, and one of them is lost: a
restarted replica without its state needs a new name.

**What is decided when updates are concurrent**, and differs by type only here:

- `GCounter`, `PNCounter`: nothing, additions commute.
- `LWWRegister`: the greater timestamp stays, the other write is lost without a word. A clock that
  runs behind loses all of its writes, also those made *after* the one that stays was read.
- `MVRegister`: both stay, as siblings, until a write that has seen them replaces them.
- `ORSet`: an add wins over a remove that had not seen it.
- `Sequence`: both elements stay, the newer first, in the same order everywhere.

**Repeated updates.** A merge is idempotent, an update is not: to add 1 twice is 2. `ORSet` asks for
no more than it has, and an `IdempotentCounter`'s additions and a `Sequence`'s inserts may have a
name (a client's idempotency key), under which they are made once at whatever nodes they are tried.

Where it departs from the papers: whole states are merged, not deltas (delta §4) or operations;
`ORSet` and `MVRegister` keep a version vector instead of tombstones, which is right because states
travel whole; `Sequence` keeps the tombstones of deleted elements for ever.
"""

from __future__ import annotations

from services.protocols.crdt.counters import GCounter, IdempotentCounter, PNCounter
from services.protocols.crdt.dots import Dot, Dots
from services.protocols.crdt.or_set import ORSet
from services.protocols.crdt.registers import LWWRegister, MVRegister
from services.protocols.crdt.sequence import Sequence

__all__ = [
    "Dot",
    "Dots",
    "GCounter",
    "IdempotentCounter",
    "LWWRegister",
    "MVRegister",
    "ORSet",
    "PNCounter",
    "Sequence",
]
