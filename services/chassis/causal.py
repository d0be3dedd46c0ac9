"""Drives a causally consistent store: persist, then send, then reply.

The order is that of `answering.py`. *Send before persist* gives a dot out twice: n1 sends its third
write, crashes before it is on disk, restarts having forgotten it, and calls the next one its third,
too; who has the first of the two takes the second for known, and never applies it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from services.chassis.answering import AnsweringDriver
from services.chassis.errors import DeadlineExceeded, Unavailable
from services.protocols.causal import Causal, Level, Reply, Session

BEHIND = "this node has not got yet all that the session has seen; nothing happened"


class CausalDriver(AnsweringDriver):
    """Runs one `Causal`."""

    write_late = "on its way to the disk"
    read_late = BEHIND

    def __init__(self, core: Causal, *parts: Any, **how: Any) -> None:
        super().__init__(core, *parts, **how)
        self.core: Causal = core

    async def write(
        self, key: str, value: bytes | None, *, session: Session, level: Level, deadline: float
    ) -> Reply:
        """Once it is on this node's disk.

        Raises Unavailable (definite; this node is behind the session, or too much is in flight),
        DeadlineExceeded or InternalError (indefinite).
        """
        request = self._number()
        try:
            reply: Reply = await self._operate(
                request,
                lambda: self.core.write(request, key, value, session=session, level=level),
                deadline,
                writes=True,
            )
        except DeadlineExceeded:
            # Between its deadline and now it may have been carried out after all.
            if self.core.withdraw(request):
                raise Unavailable(BEHIND) from None
            raise
        finally:
            self.core.withdraw(request)  # a client that hung up, too, waits no longer
        return reply

    async def read(self, key: str, *, session: Session, level: Level, deadline: float) -> Reply:
        """What this node has of `key`. All errors are definite: a read changes nothing."""
        request = self._number()
        try:
            reply: Reply = await self._operate(
                request,
                lambda: self.core.read(request, key, session=session, level=level),
                deadline,
                writes=False,
            )
        finally:
            self.core.withdraw(request)
        return reply

    def _answer(self, future: asyncio.Future[Any], reply: Reply) -> None:
        future.set_result(reply)
