"""Log shipping from one primary to its backups, with and without failover: Faultline's control.

This is how MySQL (asynchronous, semi-synchronous), PostgreSQL (streaming replication), Redis with
Sentinel and early MongoDB replicate, and what scripts around them do when the primary falls silent.
It is here to be compared with a consensus protocol: most of it is the same (an ordered log, one
node that orders), and what is missing is exactly what loses data.

Theory of operation
-------------------
**Invariant (within one epoch).** An epoch has one primary; backups hold prefixes of its log.

The primary appends commands to its log, ships the log to every backup, and acknowledges a command
once enough nodes have it on stable storage:

    asynchronous        the primary alone
    semi_synchronous    the primary and at least one backup
    synchronous         the primary and all backups: with one backup gone, nothing is acknowledged

Epochs number the primaries. Epoch *e* belongs to the node at place (e − 1) mod n in id order, as
Paxos deals out ballots: two nodes that promote themselves at once cannot take the same number, so
(index, epoch) names one entry, and who is primary follows from the epoch. Epoch 1 is the first
node's: a new cluster needs no election. A node takes a higher epoch for the better claim, always.

Every node sends heartbeats to every other. A backup that hears nothing from the primary for
`election_ticks` does what `promotion` says:

    none         it waits; an operator will decide (or the primary comes back)
    naive        if it hears no backup with a lower id, it makes itself primary of a higher epoch
    longest_log  it does so if all backups that it hears have lost the primary too, and none of them
                 has a longer log (`promotion.py`)

**What is wrong with naive promotion.** Silence does not mean death. In a partition both sides have
a primary that acknowledges writes (split brain); nothing makes the two sets of acknowledging nodes
overlap, which is what a quorum is for. When the partition heals, two histories exist, one must go,
and acknowledged writes go with it. Three more ways to the same end:

- the lowest id is promoted, not the backup with the longest log: semi-synchronous replication loses
  nothing only if the backup that has the write is the one promoted (`longest_log` mends this one,
  and no other);
- the old primary, restarted or resumed, still believes in its epoch until someone tells it: reads
  need no round trip, so it answers them from the past;
- a primary that restarts without its disk ships its empty log, and the backups make themselves
  equal to it (the Redis documentation warns of this).

Ordering rule: records are persisted before messages that speak of them (as in every core): a
backup's `Acknowledge` is a promise, and so is the epoch in a heartbeat.

Healing. The primary's log is the truth. It ships each part with the digest of everything before it
(`log.py`), a backup finds the last common entry, discards what it has beyond (`discard_suffix`
tells how many of these had been acknowledged), and takes the primary's. Entries are applied when
acknowledged, so the discarded ones may be in the state machine already, and a state machine cannot
go back: it is rebuilt from the last snapshot and the log after it (`Ready.restore`). When the
histories part before the snapshot, the backup starts from nothing, or from the primary's snapshot.

Departures from the products: MySQL falls back from semi-synchronous to asynchronous after a
timeout, which makes the promise void just when it counts; here it does not. Sentinels vote on the
failover, but the old master does not take part in the vote: the split is the same.
"""

from __future__ import annotations

from services.protocols.primary_backup.acknowledgement import ACKNOWLEDGEMENTS
from services.protocols.primary_backup.messages import (
    MESSAGES,
    RECORDS,
    Acknowledge,
    HardState,
    Heartbeat,
    InstallSnapshot,
    Replicate,
    Truncate,
)
from services.protocols.primary_backup.node import PrimaryBackup
from services.protocols.primary_backup.promotion import PROMOTIONS

__all__ = [
    "ACKNOWLEDGEMENTS",
    "MESSAGES",
    "PROMOTIONS",
    "RECORDS",
    "Acknowledge",
    "HardState",
    "Heartbeat",
    "InstallSnapshot",
    "PrimaryBackup",
    "Replicate",
    "Truncate",
]
