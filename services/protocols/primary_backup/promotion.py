"""Which backup takes the place of a primary that is silent: the decision of one node, alone.

    none         nobody; an operator will decide (or the primary comes back)
    naive        who hears no node with a lower id
    longest_log  who has lost the primary together with all backups that it hears, if none of those
                 has a longer log (the later epoch first, then the length, then the lower id)

`longest_log` is what MHA does for MySQL, and Redis Sentinel with the replication offset. With
semi-synchronous acknowledgement it makes good on the promise **if the primary is dead**: what it
acknowledged was on a backup by then, before that one could miss it, so that backup's word that it
has lost the primary comes with a log that holds the write; whoever is promoted has one as long, of
the same epoch, hence with the same entries. It holds as long as that backup lives and is heard:
one that is not heard is not waited for. (Who hears nobody at all, though there are other backups,
is not promoted: it is the one that is cut off, or that was asleep.) Nor does it hold where a link
comes and goes within one message's time: a backup says "lost", and before that arrives it hears the
primary again and acknowledges a write to it, which then dies. And a primary that is merely
*unheard* goes on acknowledging to whom it reaches: in a partition this rule splits the brain as the
naive one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from services.protocols.core import NodeId
from services.protocols.primary_backup.messages import Heartbeat

PROMOTIONS = ("none", "naive", "longest_log")


def may_promote(
    rule: str,
    own: Heartbeat,
    peers: Sequence[NodeId],
    silent: Callable[[NodeId], bool],
    said: Mapping[NodeId, Heartbeat],
) -> bool:
    """May this node, which has lost the primary, take its place?

    `own`: what it says of itself; `said`: what its peers said last, since this node has missed the
    primary. A peer that is heard and has said nothing in this epoch since then is waited for.
    """
    heard = [peer for peer in peers if not silent(peer)]
    if rule == "naive":
        return all(peer > own.src for peer in heard)
    if rule == "none":
        return False
    last = [said[peer] for peer in heard if peer in said]
    asleep = not heard and len(peers) > 1
    return (
        not asleep
        and len(last) == len(heard)
        and all(each.epoch == own.epoch and each.lost and _goes_before(own, each) for each in last)
    )


def _goes_before(one: Heartbeat, other: Heartbeat) -> bool:
    mine, its = ((each.last_term, each.last_index) for each in (one, other))
    return mine > its or (mine == its and one.src < other.src)
