"""The state of a server: its log, its place in the chain, and how it moves from epoch to epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Unpack

from services.protocols import member
from services.protocols.chain.messages import Configuration
from services.protocols.core import Entry, NodeId, Snapshot
from services.protocols.log import Log
from services.protocols.member import Member

if TYPE_CHECKING:
    from services.protocols.chain.messages import Finding
    from services.protocols.member import Settings
    from services.protocols.raft import Raft


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(member.Limits):
    """`member.Limits`, and these."""

    caught_up_entries: int = 256  # a server joins once it lacks no more than these
    configurations: int = 64  # in the master's log, before a snapshot takes their place

    may_be_zero: ClassVar[tuple[str, ...]] = (*member.Limits.may_be_zero, "caught_up_entries")


class Link:
    """What a server knows of one that it forwards to: its successor, or who is outside."""

    __slots__ = (
        "heard_tick",
        "match_index",
        "met",
        "next_index",
        "node",
        "offset",
        "probed",
        "sent_tick",
        "snapshot",
    )

    def __init__(self, node: NodeId, *, next_index: int, tick: int) -> None:
        self.node = node
        self.next_index = next_index  # of the update to send next
        self.match_index = 0  # it has the log up to here
        self.met = False  # is it known where the logs meet?
        self.probed = False  # was that asked?
        self.heard_tick = tick
        self.snapshot: Snapshot | None = None  # being sent
        self.offset = 0  # of the chunk that is on its way
        self.sent_tick = 0  # the tick at which that chunk was sent

    def probe(self, next_index: int) -> None:
        self.met = self.probed = False
        self.snapshot = None
        self.next_index = next_index

    def meet(self) -> None:
        self.met = True
        self.snapshot = None
        self.next_index = self.match_index + 1


NO_CHAIN: Final = Configuration(0, (), ())


class ChainState(Member):
    """Fields, and the steps that belong to no part of the protocol."""

    limits: Limits
    master: Raft

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(node, peers, **settings)
        self.members = tuple(sorted((node, *peers)))

        # Persistent state.
        self.log = Log()  # entry.term is the epoch of the head that took the update in
        self.config = NO_CHAIN

        # The place in the chain (`take_place`).
        self.in_chain = self.is_head = self.is_tail = False
        self.successor: NodeId | None = None  # the next one; None at the tail and outside
        self.upstream: NodeId | None = None  # the predecessor; for one outside, the tail

        # Volatile state.
        self.commit_index = 0  # the tail is known to have the log up to here
        self.applied_index = 0
        self.start: int | None = None  # of this epoch; None: not heard yet
        self.links: dict[NodeId, Link] = {}
        self.uncommitted_bytes = 0  # the head's
        self._verified = 0
        self._answer = False  # owed to the predecessor

        # What the next ready() hands over.
        self._config_changed = False
        self._snapshot_changed = False
        self._unpersisted: list[Entry] = []

    # ---- place in the chain -----------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self.config.epoch

    def take_place(self) -> None:
        """Find this server in the chain of `config`."""
        chain = self.config.chain
        self.in_chain = self.node in chain
        place = chain.index(self.node) if self.in_chain else len(chain)
        self.is_head = self.in_chain and place == 0
        self.is_tail = self.in_chain and place == len(chain) - 1
        self.successor = chain[place + 1] if self.in_chain and not self.is_tail else None
        self.upstream = chain[place - 1] if place > 0 else None

    @property
    def verified(self) -> int:
        """Up to here the log is, in this epoch, that of all who are before this server.

        It is what the paper calls Hist of a server. Behind it may be what an earlier head has left;
        that is neither forwarded nor acknowledged. The log of the head is right by definition.
        """
        return self.log.last_index if self.is_head else self._verified

    @property
    def synced(self) -> bool:
        """Has this member, in this epoch, all that was acknowledged so far?

        In earlier epochs (`start`); and in this one, of which a member that was restarted may have
        acknowledged all that its log has: a Forward from before, late or sent twice, says less.
        """
        own = self.log.last_index if self.log.last_term == self.epoch else 0
        return self.in_chain and self.start is not None and self.verified >= max(self.start, own)

    def cut_off(self) -> bool:
        """Nothing is heard: neither of a master nor of the successor."""
        if self.master.leader is not None:
            return False
        return self.successor is None or self.is_silent(self.links[self.successor])

    def is_silent(self, link: Link) -> bool:
        return self.ticks - link.heard_tick >= self.election_ticks

    def leader(self) -> NodeId | None:
        """The head, whom to ask for a write; None: not known."""
        if not self.config.chain or (
            self.master.leader is None and (not self.is_head or self.cut_off())
        ):
            return None
        return self.config.chain[0]

    # ---- epochs -----------------------------------------------------------------------------

    def enter(self, config: Configuration) -> None:
        """The master has decided on a later chain: forget what concerned the earlier one."""
        assert config.epoch > self.epoch, f"{self.node}: from {self.config} to {config}"
        led = self.is_head
        self.config = config
        self._config_changed = True
        self.take_place()
        self.emit(
            "enter_epoch",
            epoch=config.epoch,
            chain=" ".join(config.chain),
            joining=" ".join(config.joining),
        )
        if led and not self.is_head:
            self.emit("step_down", term=config.epoch, reason=f"{config.chain[0]} is the head")
        self.begin_epoch()
        # The predecessor has asked already, if it entered first; else it asks when it does.
        self._answer = True

    def begin_epoch(self) -> None:
        """Start from what is known for sure: what is committed (also after a restart)."""
        self.forget_findings()
        self._receiving = None
        self._answer = False
        self._verified = self.commit_index
        self.start = self.log.last_index if self.is_head else None
        after = [self.successor] if self.successor is not None else []
        outside = [node for node in self.members if node not in self.config.chain]
        self.links = {
            node: Link(node, next_index=self.log.last_index + 1, tick=self.ticks)
            for node in after or (outside if self.is_tail else [])
        }
        self.refuse_reads()
        if self.is_head:
            waiting = self.log.between(self.commit_index, self.log.last_index)
            self.uncommitted_bytes = sum(len(entry.command) for entry in waiting)
            self.emit("become_leader", term=self.epoch, last_index=self.log.last_index)
        if self.is_tail:
            self.advance(self.verified)

    def advance(self, stable: int) -> None:
        """The tail has the log up to `stable`, and so has everybody in the chain."""
        if stable <= self.commit_index:
            return
        assert stable <= self.verified, f"{self.node}: {stable} of {self.verified} are stable"
        if self.is_head:
            for entry in self.log.between(self.commit_index, stable):
                self.uncommitted_bytes -= len(entry.command)
        self.commit_index = stable
        self._answer = True
        self.grant_reads()

    # ---- what one part needs of another -----------------------------------------------------

    _receiving: tuple[int, int] | None = None  # the snapshot: last index, its epoch

    def report(self, node: NodeId, finding: Finding) -> None:
        raise NotImplementedError

    def forget_findings(self) -> None:
        raise NotImplementedError

    def newest_epoch(self) -> int:
        raise NotImplementedError

    def refuse_reads(self) -> None:
        raise NotImplementedError

    def grant_reads(self) -> None:
        raise NotImplementedError

    def begin_transfer(self, link: Link) -> None:
        raise NotImplementedError
