"""Who waits for the core: clients with a proposal in the log, clients with a read to be granted.

All bounded by the driver, all with a deadline on the event loop's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from services.chassis.errors import DeadlineExceeded, InternalError, ServiceError, Unavailable
from services.protocols.core import Entry, ReadGrant, ReadRefusal

SWEEP_MIN = 1024  # waiting and answered futures; fewer are not worth a sweep


def fail(future: asyncio.Future[Any], error: ServiceError) -> None:
    """Answer with an error, unless there was an answer (or a cancellation) before."""
    if not future.done():
        future.set_exception(error)


def _proposal_expired() -> ServiceError:
    return DeadlineExceeded("proposed, but not committed in time")


def _read_expired() -> ServiceError:
    return Unavailable("no quorum confirmed the read in time; it changed nothing")


class Deadlines:
    """Fails futures at their deadlines (on the event loop's clock), by one timer for all.

    A timer per request, made and cancelled, costs more than to apply the request, and nearly all
    are answered long before. An answered future stays in the heap until it comes to the top and
    the timer fires, or until the answered ones are swept out: whenever the heap has doubled, so
    that it costs a constant per request and holds at most as many answered as waiting ones.
    """

    def __init__(self, error: Callable[[], ServiceError]) -> None:
        self._error = error
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int, asyncio.Future[Any]]] = []
        self._number = 0  # breaks ties: futures have no order
        self._sweep_at = SWEEP_MIN
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, deadline: float, future: asyncio.Future[Any]) -> None:
        """`future` fails at `deadline`, if it is not done by then."""
        if len(self._heap) >= self._sweep_at:
            self._heap = [waiting for waiting in self._heap if not waiting[2].done()]
            heapify(self._heap)
            self._sweep_at = max(SWEEP_MIN, 2 * len(self._heap))
        self._number += 1
        heappush(self._heap, (deadline, self._number, future))
        if self._timer is None or deadline < self._timer.when():
            self._arm(deadline)

    def cancel(self) -> None:
        """No more timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._heap.clear()

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._heap:
            deadline, _, future = self._heap[0]
            if deadline > now and not future.done():
                self._arm(deadline)
                return
            heappop(self._heap)
            fail(future, self._error())


class _Proposal:
    __slots__ = ("future", "traceparent")

    def __init__(self, future: asyncio.Future[Any], traceparent: str) -> None:
        self.future = future
        self.traceparent = traceparent


class Proposals:
    """Proposals in flight by index, then term.

    By both, for an entry of term 1 may be overwritten by one of term 3 at the same index while a
    client waits for each. `final`: what is committed stays so, hence what was overwritten is gone.
    """

    def __init__(self, *, final: bool = True) -> None:
        self._overwritten = Unavailable if final else DeadlineExceeded
        self._by_index: dict[int, dict[int, _Proposal]] = {}
        self._deadlines = Deadlines(_proposal_expired)
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._by_index)

    async def wait(self, index: int, term: int, deadline: float, traceparent: str) -> Any:
        """The reply to the entry (index, term), or the error that took its place."""
        terms = self._by_index.setdefault(index, {})
        assert term not in terms, f"the core named two proposals ({index}, {term})"
        future: asyncio.Future[Any] = self._loop.create_future()
        terms[term] = _Proposal(future, traceparent)
        self._deadlines.add(deadline, future)
        try:
            return await future
        finally:
            terms.pop(term, None)
            if not terms and self._by_index.get(index) is terms:
                del self._by_index[index]

    def committed(self, entry: Entry, reply: Any) -> list[tuple[asyncio.Future[Any], Any]]:
        """Who is to be answered now that `entry` was applied, and with what."""
        terms = self._by_index.pop(entry.index, None)
        if terms is None:
            return []
        # This index is taken: for ever, where commits are final; else the proposal may come back.
        lost = self._overwritten(f"overwritten: index {entry.index} went to another leader's entry")
        return [
            (proposal.future, reply if term == entry.term else lost)
            for term, proposal in terms.items()
        ]

    def replaced(self, last_index: int) -> None:
        """A snapshot stands for the log up to `last_index`: what became of these is not known."""
        error = DeadlineExceeded("the log was replaced by a snapshot; the outcome is not known")
        for index in [i for i in self._by_index if i <= last_index]:
            for proposal in self._by_index.pop(index).values():
                fail(proposal.future, error)

    def traceparents(self, entries: list[Entry]) -> list[str]:
        """Of the client requests that these entries were proposed for, here."""
        found = []
        for entry in entries:
            terms = self._by_index.get(entry.index)
            proposal = terms.get(entry.term) if terms else None
            if proposal is not None and proposal.traceparent:
                found.append(proposal.traceparent)
        return found

    def stop(self) -> None:
        """The node stops: nobody here will learn the outcome."""
        self._deadlines.cancel()
        error = InternalError("the node is stopping; the outcome is not known")
        for terms in self._by_index.values():
            for proposal in terms.values():
                fail(proposal.future, error)


class Reads:
    """Reads waiting for their grant, and grants waiting for their index to be applied.

    `expired`: the error of those whose deadline passes.
    """

    def __init__(self, expired: Callable[[], ServiceError] = _read_expired) -> None:
        self._by_id: dict[int, asyncio.Future[None]] = {}
        self._granted: list[ReadGrant] = []
        self._deadlines = Deadlines(expired)
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._by_id)

    async def wait(self, read_id: int, deadline: float) -> None:
        """Returns when the read may be served. All errors are definite: it changes nothing."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._by_id[read_id] = future
        self._deadlines.add(deadline, future)
        try:
            await future
        finally:
            self._by_id.pop(read_id, None)

    def grant(self, grant: ReadGrant) -> None:
        """To be served once its index is applied."""
        self._granted.append(grant)

    def refuse(self, refusal: ReadRefusal, error: ServiceError) -> None:
        """Not here."""
        future = self._by_id.get(refusal.read_id)
        if future is not None:
            fail(future, error)

    def applied(self, index: int) -> None:
        """Let those go whose index is applied now."""
        if not self._granted:
            return
        waiting = []
        for grant in self._granted:
            future = self._by_id.get(grant.read_id)
            if future is None:
                continue  # its deadline has passed
            if grant.index > index:
                waiting.append(grant)
            elif not future.done():
                future.set_result(None)
        self._granted = waiting

    def stop(self) -> None:
        """The node stops."""
        self._deadlines.cancel()
        for future in self._by_id.values():
            fail(future, Unavailable("the node is stopping"))
