"""Drives a store whose replicas keep states of keys: persist, then send, then reply.

The order is that of `answering.py`. *Send before persist* gives a dot out twice: n1 sends its
third write of a key, crashes before it is on disk, restarts having forgotten it, and calls the next
write its third, too; whoever has the first of the two takes the second for known. *Reply before
persist* tells a client of W copies when there are W - 1.
"""

from __future__ import annotations

import asyncio
from typing import Any

from services.chassis.answering import AnsweringDriver
from services.chassis.errors import (
    DeadlineExceeded,
    KeyReused,
    NotFound,
    ServiceError,
    TooLarge,
    Unavailable,
)
from services.chassis.waiters import fail
from services.protocols.quorum.data import Full, NameReused, NoSuchElement, Refused, Update

_REFUSALS: dict[type[Refused], type[ServiceError]] = {
    NameReused: KeyReused,
    NoSuchElement: NotFound,
    Full: TooLarge,
}


class LeaderlessDriver(AnsweringDriver):
    """Runs one `Quorum`, `Gossip` or `MultiLeader`; what a state is, is the core's own business."""

    write_late = "too few replicas have it so far"
    read_late = "too few replicas answered in time; it changed nothing"

    async def write(self, key: str, value: bytes | None, *, deadline: float, **how: Any) -> Any:
        """The key's state here after the write, once enough disks have it. `how`: as the core's.

        Raises NotLeader (definite: this node may not do it, ask another), Unavailable (definite),
        DeadlineExceeded or InternalError (indefinite: some replica may have it).
        """
        request, stamp = self._number(), int(self._clock.wall() * 1e6)
        return await self._operate(
            request,
            lambda: self.core.write(request, key, value, stamp=stamp, **how),
            deadline,
            writes=True,
        )

    async def update(self, key: str, what: Update, *, deadline: float, **how: Any) -> Any:
        """As `write`, of a data type. Raises KeyReused, NotFound (of an element) and TooLarge, too,
        all definite."""
        request = self._number()

        def ask() -> None:
            try:
                self.core.update(request, key, what, **how)
            except Refused as refused:
                raise _REFUSALS[type(refused)](str(refused)) from None

        return await self._operate(request, ask, deadline, writes=True)

    async def read(self, key: str, *, deadline: float, **how: Any) -> Any:
        """What the replicas that answered know. All errors are definite: a read changes nothing."""
        request = self._number()
        return await self._operate(
            request, lambda: self.core.read(request, key, **how), deadline, writes=False
        )

    def _answer(self, future: asyncio.Future[Any], reply: Any) -> None:
        if reply.done:
            future.set_result(reply.state)
        elif reply.request in self._writes:
            fail(future, DeadlineExceeded(f"only {reply.reached} replicas have it so far"))
        else:
            fail(future, Unavailable(f"only {reply.reached} replicas answered"))
