"""The life of one fault: planned, injected, felt, healed, recovered; each written when it happens.

The plan is in the history and in `faults.jsonl` before anything is touched, so that a clean-up
knows all targets even when the injection fails half-way (openraft#1976). Healing is shielded: it
happens on every way out, exceptions and cancellation included, and has a deadline.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from labs.harness.nemesis.effects import Feeling

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from labs.harness.nemesis.effects import Effect
    from labs.harness.nemesis.nemesis import Nemesis

# An intact link to a container that has just started may need some of it: the proxy's connection
# was begun when nobody had its address, and is given up after five seconds (links/proxy.py).
FELT_WITHIN_S = 15.0
HEAL_WITHIN_S = 10.0
# A killed Kafka broker is ready again after 4 s; on a busy machine, several times that.
RECOVERED_WITHIN_S = 40.0


class NemesisError(Exception):
    """A fault could not be injected or undone; the run cannot be trusted."""


class FaultRecord(msgspec.Struct):
    """One fault, as in `faults.jsonl` and `verdict.json`. Times: seconds since the run started.

    `felt`: None until it was looked for; `recovered`: None when nobody waited for it (the scope
    was left by an exception).
    """

    id: int
    name: str
    target: str
    parameters: dict[str, Any]
    planned_at: float
    injected_at: float | None = None
    felt: bool | None = None
    felt_at: float | None = None
    felt_how: str = ""
    healed_at: float | None = None
    recovered: bool | None = None
    recovered_at: float | None = None
    recovered_how: str = ""
    error: str | None = None


class Scope:
    """`async with nemesis.…() as fault: await fault.felt(); …`. Not reusable."""

    def __init__(self, nemesis: Nemesis, effect: Effect, record: FaultRecord) -> None:
        self.record = record
        self._nemesis = nemesis
        self._effect = effect
        self._touched = False  # something may be on
        self._healing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<fault {self.record.id}: {self.record.name} {self.record.target}>"

    async def __aenter__(self) -> Scope:
        self._nemesis.note("planned", self.record)
        if not self._nemesis.enabled:
            return self
        self._touched = True
        self._nemesis.active[self.record.id] = self
        try:
            await self._effect.inject()
            self.record.injected_at = self._nemesis.now_s()
            self._nemesis.note("injected", self.record)
        except BaseException as error:
            self.record.error = f"not injected: {error!r}"
            try:
                self._nemesis.note("failed", self.record)
            finally:
                await self.heal()
            if isinstance(error, Exception):
                raise NemesisError(f"{self!r} was not injected: {error}") from error
            raise
        return self

    async def felt(self, *, within_s: float = FELT_WITHIN_S) -> bool:
        """Prove by probes that the fault bites where it should and nowhere else.

        False: it was not felt; the run is then invalid (`nemesis.unfelt`), whatever it shows.
        """
        if not self._nemesis.enabled:
            feeling = Feeling(False, "planned, not injected: the nemesis is off")
        else:
            feeling = await self._feel(within_s)
        self.record.felt = feeling.seen and self.record.felt is not False
        self.record.felt_at = self._nemesis.now_s()
        self.record.felt_how = feeling.how
        self._nemesis.note("felt" if feeling.seen else "unfelt", self.record)
        return self.record.felt

    async def heal(self) -> None:
        """Undo the fault. Idempotent; raises NemesisError when it stays on."""
        if not self._touched:
            return
        if self._healing is None or (self._healing.done() and _failed(self._healing)):
            self._healing = asyncio.create_task(self._heal(), name=f"heal {self!r}")
        await _to_its_end(self._healing)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        in_order = error is None
        try:
            if in_order and self._touched:
                await self._still_felt()
            elif in_order and self.record.felt is None:
                await self.felt()
        finally:
            await self.heal()
        if in_order and self.record.healed_at is not None:
            await self._recover()
        self._nemesis.note("ended", self.record)

    async def _feel(self, within_s: float) -> Feeling:
        try:
            # The effects keep the deadline themselves; this one is for when they hang.
            async with asyncio.timeout(within_s * 2 + 1):
                return await self._effect.feel(within_s)
        except TimeoutError:
            return Feeling(False, f"could not be probed within {within_s * 2 + 1:g} s")
        except Exception as error:
            return Feeling(False, f"could not be probed: {error!r}")

    async def _still_felt(self) -> None:
        """Just before healing: is it still on? A fault that ended early proves nothing either."""
        feeling = await self._feel(FELT_WITHIN_S)
        record = self.record
        if record.felt is None:
            record.felt, record.felt_how = feeling.seen, feeling.how
            record.felt_at = self._nemesis.now_s()
        elif not feeling.seen:
            record.felt = False
            record.felt_how += f"; but before the heal: {feeling.how}"
        else:
            record.felt_how += f"; before the heal: {feeling.how}"
        self._nemesis.note("felt" if feeling.seen else "unfelt", record)

    async def _heal(self) -> None:
        try:
            async with asyncio.timeout(HEAL_WITHIN_S):
                await self._effect.heal()
        except BaseException as error:
            self.record.error = f"not healed: {error!r}"
            self._nemesis.note("failed", self.record)
            if isinstance(error, Exception):
                raise NemesisError(f"{self!r} was not healed: {error!r}") from error
            raise
        self._nemesis.active.pop(self.record.id, None)
        self._touched = False
        self.record.healed_at = self._nemesis.now_s()
        self._nemesis.note("healed", self.record)

    async def _recover(self) -> None:
        """Healed is not recovered (yugabyte-db#8636): wait until it is."""
        try:
            async with asyncio.timeout(RECOVERED_WITHIN_S * 2):
                feeling = await self._effect.recover(RECOVERED_WITHIN_S)
                if feeling.seen:
                    feeling = await self._nemesis.ready(feeling.how, RECOVERED_WITHIN_S)
        except Exception as error:
            feeling = Feeling(False, str(error) or repr(error))
        self.record.recovered, self.record.recovered_how = feeling
        self.record.recovered_at = self._nemesis.now_s()
        self._nemesis.note("recovered" if feeling.seen else "unrecovered", self.record)


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None


async def _to_its_end(task: asyncio.Task[Any]) -> None:
    """Wait for `task` even when cancelled meanwhile; then let the cancellation go on.

    The task has a deadline of its own, so this wait has one too.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # told by the record; the cancellation matters more
        raise cancelled
    task.result()


async def healed(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a clean-up to its end, whatever cancels its caller."""
    await _to_its_end(asyncio.create_task(coroutine))
