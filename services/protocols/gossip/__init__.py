"""Gossip: who is there, what is new, and what was missed, by talking to a few others at random.

SWIM (Das, Gupta, Motivala, DSN 2002) and *Epidemic algorithms for replicated database maintenance*
(Demers et al., PODC 1987).

Theory of operation
-------------------
Invariants first.

1. **Only a member raises its incarnation**, on disk before anybody hears of it, at every start and
   at every refutation. News of a member are ordered by (incarnation, alive < suspect < faulty), and
   a view moves up this order alone: so old news changes nothing, and a refutation settles a
   suspicion wherever the two meet.
2. **A node knows what it has acknowledged**: a write is on its own disk before its client hears of
   it, and merging (`quorum/versions.py`) forgets nothing that was not replaced. With
   last-write-wins each node keeps the write with the greatest stamp of those that it has heard of.
   (Dots are named after disks: a node that has lost its own counts from 1 again, and under its own
   name the others would take its new writes for known.)
3. **What is deleted is remembered as deleted** (Demers §2, death certificates): a tombstone is a
   version like others. Ours are kept for ever. Who collects one while a node is away that has the
   value gets that value back, by anti-entropy, as something new.
4. **Replicas converge** once they hear each other: merging is commutative, associative and
   idempotent, and anti-entropy compares any two with probability one.

Three mechanisms, each of which needs the next:

- *Membership* (`membership.py`). In each protocol period a node pings one other; without an answer
  it asks k proxies to ping it; without an answer to any of them it suspects it. Who is suspected
  may refute, with a greater incarnation; who does not is faulty. The news travel on these very
  messages, each at most λ·⌈log2(n + 1)⌉ times by a node: the load of a node does not grow with n,
  and news is everywhere within O(log n) periods, almost always.
- *Rumours* (`rumours.py`). A write makes a rumour; each round its node tells `fanout` others, who
  tell it on, until it has often met those who know it. This takes O(log n) rounds and may miss
  somebody: with the stop rule k a share of about e^-(k+1) stays ignorant (§1.4), and whoever was
  cut off always does.
- *Anti-entropy* (`quorum/synchronisation.py`, hash trees). Two nodes compare all that they have and
  exchange what differs. It misses nobody, and is slower. What it brings is a rumour again.

A write is acknowledged by one disk (R = W = 1): available at every node that lives, and stale
everywhere else until the rumour comes. If that disk is lost first, so is the write.

Beside plain values it keeps data types (`quorum/data.py`), which merge by themselves: neither a
rumour that comes twice nor one that overtakes another makes any difference to them.

Departures from the papers: membership is by configuration, so a faulty member is still known, and
now and then pinged, for a partition that has healed must be noticed by somebody; faulty is
therefore not for ever but loses to a greater incarnation (as in HashiCorp's memberlist). Every ping
to a member that is not taken for alive carries the accusation, so that it can refute.
"""

from services.protocols.gossip.core import Gossip
from services.protocols.gossip.messages import MESSAGES, RECORDS

__all__ = ["MESSAGES", "RECORDS", "Gossip"]
