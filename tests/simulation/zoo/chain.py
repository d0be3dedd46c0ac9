"""Planted bugs: mistakes that people make in chain replication.

Each is a subclass of `Chain` with one rule broken, or a driver or a state machine that breaks its
promise. None of this is ever in the core. The first sentence says which rule, the rest which
history goes wrong.
"""

from __future__ import annotations

from services.protocols.chain import Chain
from services.protocols.chain.messages import (
    Acknowledge,
    Configuration,
    MasterRecord,
    Record,
)
from tests.simulation.zoo.bug import Bug
from tests.simulation.zoo.machines import NoClientTable


class TailDoesNotAsk(Chain):
    """The tail answers reads without knowing that it is still in the chain. It was taken for failed
    and excluded; the chain that is left acknowledges writes that it never sees."""

    def ask_for_reads(self) -> None:
        if self.is_tail and self.synced:
            self._asked, self._waiting = self._waiting, []
            self._asked_index = self.verified
            self._confirmed_by = set(self.members)
            self._count_confirmations()


class SyncedAtOnce(Chain):
    """Rule 3: a server that is new in the chain takes itself for synced as soon as it is heard. It
    answers reads, and is a survivor, without all that was acknowledged before it came."""

    @property
    def synced(self) -> bool:
        return self.in_chain and self.start is not None


class AcknowledgedBeforeTheTail(Chain):
    """The head answers once its successor has the update. Both fail, and the rest of the chain,
    which never got it, goes on."""

    def on_acknowledge(self, message: Acknowledge) -> None:
        if self.is_head and message.accepted and message.epoch == self.epoch:
            message.stable = message.index
        super().on_acknowledge(message)


class EpochNotChecked(Chain):
    """Rule 2: updates are taken from whoever forwards them, of whatever epoch. It was excluded, and
    does not know: what it still sends stands in the place of what the new head has ordered."""

    def accepts(self, epoch: int, src: str) -> bool:
        return self.upstream is not None


class InProcessNotResent(Chain):
    """§3, failure of other servers: what was on its way to a server that failed is not sent again
    to the next one. Its predecessor takes for granted that the successor's successor has it."""

    def begin_epoch(self) -> None:
        super().begin_epoch()
        for link in self.links.values():
            link.match_index = self.verified
            link.meet()


class JoinsWithoutTheState(Chain):
    """Rule 3: for the master, who is new in the chain is a survivor, though it never said that it
    has synced. The others fail before it has, and the chain goes on with what it has."""

    def is_full(self, node: str) -> bool:
        return True


class EpochForgotten(Chain):
    """Rule 2: the epoch is not on disk. A server restarts in an earlier one, still takes part in
    that, and acknowledges what the later chain does not have."""

    def _take_records(self, masters: list[MasterRecord]) -> list[Record]:
        records = super()._take_records(masters)
        return [record for record in records if not isinstance(record, Configuration)]


class HeadOfNoChain(Chain):
    """Rule 3: the next chain is all servers that are alive, in the order of their names. One that
    was outside comes back as the head, with the log of long ago."""

    def next_chain(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        alive = tuple(node for node in self.members if self.is_alive(node))
        return alive, ()


BUGS = {
    bug.name: bug
    for bug in (
        Bug("tail_does_not_ask", TailDoesNotAsk),
        Bug("synced_at_once", SyncedAtOnce),
        Bug("acknowledged_before_the_tail", AcknowledgedBeforeTheTail),
        Bug("epoch_not_checked", EpochNotChecked),
        Bug("in_process_not_resent", InProcessNotResent),
        Bug("joins_without_the_state", JoinsWithoutTheState),
        Bug("epoch_forgotten", EpochForgotten),
        Bug("head_of_no_chain", HeadOfNoChain),
        Bug("acknowledged_before_durable", persist_before_send=False),
        Bug("no_client_table", machine=NoClientTable),
    )
}
