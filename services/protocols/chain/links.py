"""Updates down the chain and acknowledgements up: `Forward` and `Acknowledge` (§3).

A new epoch begins with a probe: where do the logs of a server and its successor meet? From there on
everything is sent again that the successor may lack: the paper's Sent list (§3, "failure of other
servers") is the log behind `match_index`.
"""

from __future__ import annotations

from services.protocols.chain.messages import Acknowledge, Forward
from services.protocols.chain.state import ChainState, Link
from services.protocols.core import Entry


class Links(ChainState):
    """Both ends of a link: of the sender the fields of `links`, of the receiver `verified`."""

    # ---- to the successor -------------------------------------------------------------------

    def forward(self) -> None:
        """Send what has not been sent. Nothing before this server was heard to be in place."""
        if self.start is None:
            return
        verified = self.verified
        for link in self.links.values():
            if not link.met:
                if not link.probed and link.snapshot is None:
                    self._send(link, [])
                continue
            while link.met and link.next_index <= verified:
                prev, limits = link.next_index - 1, self.limits
                if self.log.term(prev) is None:
                    self.begin_transfer(link)
                    break
                batch = self.log.batch(prev, limits.entries_per_message, limits.bytes_per_message)
                self._send(link, batch[: verified - prev])

    def _send(self, link: Link, entries: list[Entry]) -> None:
        prev = min(link.next_index - 1, self.verified)
        prev_epoch = self.log.term(prev)
        if prev_epoch is None:
            self.begin_transfer(link)
            return
        assert self.start is not None
        self.send(
            Forward(
                self.node,
                link.node,
                self.epoch,
                self.start,
                prev,
                prev_epoch,
                entries,
                self.commit_index,
            )
        )
        if link.met:
            # As if it had arrived. If not, the next heartbeat is refused, and the refusal tells.
            link.next_index = prev + len(entries) + 1
        else:
            link.probed = True

    def on_acknowledge(self, message: Acknowledge) -> None:
        link = self.links.get(message.src)
        if message.epoch != self.epoch or link is None:
            return
        link.heard_tick = self.ticks
        if not message.accepted:
            # Its guess leaves out all of one epoch, also what it has said that it has: it knows no
            # more of that after a restart. (Or it is late; then this is asked in vain.)
            known = max(link.match_index, min(message.index, self.log.last_index))
            if link.snapshot is None:
                link.probe(known + 1)
            return
        link.match_index = max(link.match_index, min(message.index, self.verified))
        if not link.met and self.log.term(link.match_index) is not None:
            link.meet()  # even while state is sent to it: then that was needed once, and is no more
        link.next_index = max(link.next_index, link.match_index + 1)
        if link.node == self.successor:
            self.advance(min(message.stable, self.verified))

    def _is_near(self, link: Link) -> bool:
        return self.verified - link.match_index <= self.limits.caught_up_entries

    # ---- from the predecessor ---------------------------------------------------------------

    def accepts(self, epoch: int, src: str) -> bool:
        """Only the predecessor in the chain of this very epoch is listened to."""
        return epoch == self.epoch and src == self.upstream

    def on_forward(self, message: Forward) -> None:
        if not self.accepts(message.epoch, message.src):
            return
        prev, entries, log = message.prev_index, message.entries, self.log
        if entries and (
            entries[0].index != prev + 1 or entries[-1].index != prev + len(entries)
        ):  # not something a server builds
            return
        if prev > self._verified and log.term(prev) != message.prev_epoch:
            if entries:
                return  # something before it is late or lost: the next heartbeat will find out
            hint = log.last_index if prev > log.last_index else log.first_index_of_term_at(prev) - 1
            self._acknowledge(accepted=False, index=max(hint, self.commit_index))
            return
        if self.in_chain:
            self.start = message.start
        self._merge(message)
        self._verified = max(self._verified, prev + len(entries))
        self.advance(self._verified if self.is_tail else min(message.stable, self._verified))
        if not entries or not self.in_chain:
            self._answer = True

    def _merge(self, message: Forward) -> None:
        """Skip what is here; from the first difference on, what an earlier head has left goes."""
        log = self.log
        for position, entry in enumerate(message.entries):
            if entry.index <= self._verified:
                continue
            if entry.index <= log.last_index:
                if log.term(entry.index) == entry.term:
                    continue
                assert entry.index > self.commit_index, (entry, self.commit_index)
                self.emit(
                    "truncate_log", first=entry.index, last=log.last_index, leader=message.src
                )
                log.truncate(entry.index - 1)
            rest = message.entries[position:]
            log.extend(rest)
            self._unpersisted.extend(rest)
            return

    def answer(self) -> None:
        """One acknowledgement for all that came in since the last `ready()`."""
        if self._answer and self.upstream is not None:
            self._acknowledge(accepted=True, index=self._verified)
        self._answer = False

    def _acknowledge(self, *, accepted: bool, index: int) -> None:
        assert self.upstream is not None
        stable = self.commit_index
        self.send(Acknowledge(self.node, self.upstream, self.epoch, accepted, index, stable))

    # ---- time -------------------------------------------------------------------------------

    def heartbeat(self) -> None:
        """Ask each link how far it is, and tell the master what it must know."""
        if self.start is None:
            for link in self.links.values():
                link.heard_tick = self.ticks  # nothing was asked, so nothing is to be answered
            return
        for link in list(self.links.values()):
            if link.snapshot is None:
                self._send(link, [])
            if link.node == self.successor:
                if self.is_silent(link):
                    self.report(link.node, "silent")
            elif self.synced and link.met and not self.is_silent(link) and self._is_near(link):
                self.report(link.node, "caught_up")
        if self.node in self.config.joining and self.synced:
            self.report(self.node, "synced")
