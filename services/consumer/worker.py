"""Drives the delivery core: polls, has effects applied, dead-letters, commits.

The core decides and waits for nothing; here each thing that it wants done is a task, and the task's
end is told to the core. The source's own reasons to take partitions away come in as `Listener`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import tenacity

from services.chassis.clock import Clock
from services.consumer.broker import BrokerDown, CommitRefused, Source
from services.consumer.config import ConsumerConfig
from services.consumer.effects import Effects
from services.consumer.messages import matches
from services.protocols.delivery import (
    Batch,
    Commit,
    DeadLetter,
    DeliveryCore,
    Outcome,
    Record,
)

POLL_S = 0.2
CONNECT_WAIT_MAX_S = 0.5  # of several consumers the last is what a group waits for
Tell = Callable[[Record, Outcome, float], None]


def backoff(config: ConsumerConfig) -> Callable[[int], float]:
    """Seconds to wait before the attempt after the n-th: doubling, with jitter (tenacity's)."""
    wait = tenacity.wait_exponential(
        multiplier=config.backoff_ms / 1000, max=config.backoff_max_ms / 1000
    ) + tenacity.wait_random(0, config.backoff_ms / 1000)

    def seconds(attempts: int) -> float:
        state = tenacity.RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = attempts
        return float(wait(state))

    return seconds


class Worker:
    """One consumer at work. `tell` is called with each record that has been dealt with."""

    def __init__(
        self,
        config: ConsumerConfig,
        source: Source,
        effects: Effects,
        clock: Clock,
        log: Any,
        tell: Tell,
    ) -> None:
        self.core = DeliveryCore(
            config.guarantee,
            backoff_s=backoff(config),
            in_flight_max=config.in_flight,
            batch_max=config.batch,
            attempts_max=config.attempts,
            commit_interval_s=config.commit_interval_ms / 1000,
        )
        self.counts: Counter[str] = Counter()  # of what the core does not count
        self.joined = False
        self._config = config
        self.source = source
        self._effects = effects
        self._clock = clock
        self._log = log
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()
        self._work = asyncio.Semaphore(config.concurrency)
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        self._broken: BrokerDown | None = None
        self._life = 0  # how often the broker was lost: what was begun before belongs to nobody

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Connect, poll, and connect again whenever the broker was lost; until cancelled."""
        while not self._stopping:
            await self._connect()
            try:
                while not self._stopping:
                    if self._broken is not None:
                        raise self._broken
                    room = max(1, self._config.in_flight - self.core.in_flight)
                    records = await self.source.poll(room, POLL_S)
                    if records:
                        self._receive(records)
            except BrokerDown as error:
                self._log.warning("the broker is lost", error=str(error))
                self.joined, self._broken = False, None
                self._life += 1
                self.lost(self.core.partitions)
                await self.source.stop()

    async def _connect(self) -> None:
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(BrokerDown),
            wait=tenacity.wait_random_exponential(
                multiplier=self._config.backoff_ms / 1000, max=CONNECT_WAIT_MAX_S
            ),
        )
        await attempts(self.source.start, self)
        self.joined = True

    async def stop(self, within_s: float) -> None:
        """Finish what is under way, commit it, leave. What is not begun is left to others."""
        self._stopping = True
        await self._drained(self.core.partitions, within_s)
        self.lost(self.core.partitions)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.source.stop()
        await self._effects.stop()

    # ------------------------------------------------------------------ partitions come and go

    async def assigned(self, partitions: Iterable[str]) -> None:
        self.counts["rebalances"] += 1
        wanted, life = list(partitions), self._life
        self._log.info("assigned", partitions=wanted)
        try:
            await self._effects.assigned(wanted)
            if self._config.guarantee == "transactional":
                # The position was read before the names were taken over: the transaction that
                # still was under way then may have been committed since.
                for partition in wanted:
                    await self.source.rewind(partition)
        except Exception as error:  # a transactional id that can't be had yet
            self._log.warning("effects are not ready", error=repr(error))
        if life != self._life:
            return  # meanwhile the broker was lost, and with it what that connection was given
        for partition in wanted:
            self.core.assigned(partition, self._now())
        self._turn()

    async def revoked(self, partitions: Iterable[str]) -> None:
        revoked = tuple(partitions)
        # Not longer than the group waits for us; what is late is done twice, by the next owner.
        await self._drained(revoked, self._config.session_timeout_ms / 2000)
        self.lost(revoked)

    def lost(self, partitions: Iterable[str]) -> None:
        for partition in tuple(partitions):
            self.core.forget(partition)
        self._turn()  # it may have room again

    async def _drained(self, partitions: Iterable[str], within_s: float) -> None:
        drained = tuple(partitions)
        for partition in drained:
            self.core.drain(partition)
        try:
            async with asyncio.timeout(within_s):
                while True:
                    self._changed.clear()
                    self._turn()
                    if all(map(self.core.idle, drained)):
                        return
                    await self._changed.wait()
        except TimeoutError:
            self._log.warning("not drained", partitions=drained, within_s=within_s)

    # ------------------------------------------------------------------ the core's turn

    def _now(self) -> float:
        return self._clock.true_monotonic()

    def _receive(self, records: Sequence[Record]) -> None:
        self.counts["received"] += len(records)
        self.core.received(records)
        self._turn()

    def _turn(self) -> None:
        ready = self.core.ready(self._now())
        if ready.pause is not None:
            (self.source.pause if ready.pause else self.source.resume)()
            self.counts["pauses"] += ready.pause
        if ready.commits:
            self._spawn(self._commit(ready.commits))
        for dead in ready.dead_letters:
            self._spawn(self._dead_letter(dead))
        if self._config.service_time_ms:
            for batch in ready.batches:
                self._spawn(self._work_on(batch))
        elif ready.batches:
            self._spawn(self._apply(ready.batches))
        self._wake_later()

    def _wake_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.core.wake_at()
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.001, at - self._now()), self._turn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("a bug in the consumer", exc_info=error)
        self._changed.set()

    # ------------------------------------------------------------------ what it wants done

    async def _work_on(self, batch: Batch) -> None:
        """A record takes its time; so many of them at a time as there is `concurrency`.

        What is worked out side by side takes effect in order all the same: only afterwards.
        """

        async def work() -> None:
            async with self._work:
                await asyncio.sleep(self._config.service_time_ms / 1000)

        await asyncio.gather(*(work() for _ in batch.records))
        if not self.core.current(batch.number):
            self.core.finished(batch.number, [], self._now())
            return  # taken away meanwhile: the next owner does it, and this would be once more
        await self._apply([batch])

    async def _apply(self, batches: Sequence[Batch]) -> None:
        wanted = batches
        if self._config.binding != "#" and self._config.broker == "kafka":
            wanted = [batch for batch in batches if not self._skip(batch)]
        if wanted:
            results = await self._effects.apply(wanted)
            now = self._now()
            for batch, outcomes in zip(wanted, results, strict=True):
                if outcomes is None:
                    await self._start_over(batch)
                    continue
                for record, outcome in zip(batch.records, outcomes, strict=False):
                    self._tell(record, outcome, now)
                self.core.finished(batch.number, outcomes, now)
        self._turn()

    def _skip(self, batch: Batch) -> bool:
        """Kafka has no routing: a group that wants a part of a topic reads it all."""
        if matches(self._config.binding, batch.records[0].key):
            return False
        self.counts["skipped"] += len(batch.records)
        skipped: Outcome = "duplicate"
        self.core.finished(batch.number, [skipped] * len(batch.records), self._now())
        return True

    async def _start_over(self, batch: Batch) -> None:
        """Whether the transaction was committed is not known here: its offsets know."""
        partition, ours = batch.partition, self.core.current(batch.number)
        life = self._life
        down: Outcome = "unavailable"
        self.core.finished(batch.number, [down], self._now())
        if not ours:
            return
        self.core.drain(partition)
        self.counts["started_over"] += 1

        try:
            await self._effects.start_over(partition)
            await self.source.rewind(partition)
        except Exception as error:
            # All of it then: what is read from here on must begin at the commit.
            if life == self._life:
                self._broken = BrokerDown(f"{partition} can't start over: {error!r}")
            return
        if life == self._life and partition in self.core.partitions:
            self.core.forget(partition)
            self.core.assigned(partition, self._now())

    async def _dead_letter(self, dead: DeadLetter) -> None:
        try:
            await self.source.dead_letter(dead)
        except BrokerDown as error:
            self._log.warning("a dead letter is not away yet", error=str(error))
            self.core.dead_lettered(dead.record, False, self._now())
        else:
            self.core.dead_lettered(dead.record, True, self._now())
        self._turn()

    async def _commit(self, commits: Sequence[Commit]) -> None:
        done = False
        try:
            await self.source.commit({commit.partition: commit.offset for commit in commits})
            done = True
        except CommitRefused as error:
            self._log.info("commit refused", error=str(error))
        except BrokerDown as error:
            self._log.warning("not committed", error=str(error))
        now = self._now()
        for commit in commits:
            (self.core.committed if done else self.core.commit_failed)(commit, now)
        self._turn()
