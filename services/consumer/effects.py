"""The effect of a message: its amount is added to its key's total, and its id to the key's log.

Deliberately nothing that could be repeated unnoticed: applied twice, the total is wrong and the log
holds the id twice. *Effectively once* keeps the id in the same atomic step as the effect, so that
the second time is seen; the other guarantees leave the id out.

    Redis, below the namespace   total:<key>   log:<key>   seen:<id> (effectively once only)
    the store                    <namespace>.<key> = {"total": …, "log": […]}
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.chassis.config import Address
from services.chassis.errors import (
    BadRequest,
    Indefinite,
    NotFound,
    NotLeader,
    PreconditionFailed,
    Unavailable,
)
from services.consumer.config import ConsumerConfig
from services.consumer.messages import amount_of
from services.kv.client import KvClient
from services.protocols.delivery import Batch, Outcome, Record

SEEN_FOR_S = 24 * 3600  # redelivered later than that, a message would count as new
STORE_LOG_MAX = 500  # ids that a key's value in the store remembers
CAS_ATTEMPTS = 20

# RuntimeError: what uvloop raises at a write to a connection that has just been lost.
REDIS_ERRORS = (RedisError, OSError, TimeoutError, RuntimeError)


class Effects(Protocol):
    """Applies batches; per batch one outcome a record, ending with the first that failed.

    None instead of outcomes: the partition must `start_over`, and be read again from its commit.
    """

    async def apply(self, batches: Sequence[Batch]) -> list[list[Outcome] | None]: ...

    async def assigned(self, partitions: Iterable[str]) -> None:
        """These partitions are ours from now on."""

    async def start_over(self, partition: str) -> None:
        """End whatever the partition's last batch has left open."""

    async def stop(self) -> None: ...


def new_redis(address: Address, timeout_s: float) -> redis.asyncio.Redis:
    """A client that sends each command once: a second INCRBY after a lost answer counts twice."""
    return redis.asyncio.Redis(
        host=address.host,
        port=address.port,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )


# One script for many records: all of them in one atomic step, and one round trip.
# ARGV: namespace, "1" to keep ids, seconds to keep them; then lane, id, key, amount of each record.
_SCRIPT = """
local namespace, keeps, seconds = ARGV[1], ARGV[2] == '1', ARGV[3]
local failed, outcomes = {}, {}
for at = 4, #ARGV, 4 do
  local lane, id, key, amount = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local outcome = 'skipped'
  if not failed[lane] then
    local seen = namespace .. ':seen:' .. id
    if amount == '' then
      outcome = 'rejected'
    elseif keeps and redis.call('EXISTS', seen) == 1 then
      outcome = 'duplicate'
    else
      local total = namespace .. ':total:' .. key
      if tonumber(redis.call('GET', total) or '0') + tonumber(amount) < 0 then
        outcome = 'failed'
      else
        redis.call('INCRBY', total, amount)
        redis.call('RPUSH', namespace .. ':log:' .. key, id)
        if keeps then redis.call('SET', seen, '1', 'EX', seconds) end
        outcome = 'applied'
      end
    end
    if outcome == 'rejected' or outcome == 'failed' then failed[lane] = true end
  end
  outcomes[#outcomes + 1] = outcome
end
return outcomes
"""


class AtomicEffects:
    """What effects have in common that take place by themselves, record by record."""

    async def assigned(self, partitions: Iterable[str]) -> None:
        """Whose the partitions are is nothing to it."""

    async def start_over(self, partition: str) -> None:
        """Nothing is left open."""


class RedisEffects(AtomicEffects):
    """Effects in Redis."""

    def __init__(self, config: ConsumerConfig) -> None:
        assert config.redis_address is not None, "checked with the configuration"
        self._client = new_redis(config.redis_address, config.request_timeout_ms / 1000)
        self._apply = self._client.register_script(_SCRIPT)
        keeps = config.guarantee == "effectively_once"
        self._head = [config.namespace or config.group, "1" if keeps else "0", SEEN_FOR_S]

    async def apply(self, batches: Sequence[Batch]) -> list[list[Outcome] | None]:
        arguments = list(self._head)
        for batch in batches:
            for record in batch.records:
                amount = amount_of(record.value)
                text = "" if amount is None else str(amount)
                arguments += [batch.number, record.id, record.key or "", text]
        try:
            said = iter([word.decode() for word in await self._apply(args=arguments)])
        except REDIS_ERRORS:
            down: Outcome = "unavailable"  # and perhaps applied: nobody knows
            return [[down] for _ in batches]
        return [_until_skipped([next(said) for _ in batch.records]) for batch in batches]

    async def stop(self) -> None:
        await self._client.aclose()


def _until_skipped(words: list[str]) -> list[Outcome]:
    return [cast(Outcome, word) for word in words if word != "skipped"]


class StoreEffects(AtomicEffects):
    """Effects in the replicated store: total and ids in one value, written by compare-and-set."""

    def __init__(self, config: ConsumerConfig) -> None:
        addresses = {name: str(address) for name, address in config.peers.items()}
        self._client = KvClient(addresses)
        self._namespace = config.namespace or config.group
        self._keeps = config.guarantee == "effectively_once"
        self._deadline_ms = config.request_timeout_ms

    async def apply(self, batches: Sequence[Batch]) -> list[list[Outcome] | None]:
        return list(await asyncio.gather(*map(self._batch, batches)))

    async def _batch(self, batch: Batch) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for record in batch.records:
            outcomes.append(await self._record(record))
            if outcomes[-1] not in ("applied", "duplicate"):
                break
        return outcomes

    async def _record(self, record: Record) -> Outcome:
        amount = amount_of(record.value)
        if amount is None:
            return "rejected"
        key = f"{self._namespace}.{record.key or ''}"
        try:
            for _ in range(CAS_ATTEMPTS):
                value, version = await self._read(key)
                if self._keeps and record.id in value["log"]:
                    return "duplicate"
                if value["total"] + amount < 0:
                    return "failed"
                log = [*value["log"], record.id][-STORE_LOG_MAX:]
                changed = {"total": value["total"] + amount, "log": log}
                try:
                    await self._client.cas(
                        key, changed, version=version, deadline_ms=self._deadline_ms
                    )
                except PreconditionFailed:
                    continue  # another key's owner, or our own write whose answer was lost
                return "applied"
        except (Indefinite, NotLeader, Unavailable):
            return "unavailable"
        except BadRequest:
            return "rejected"  # the store will never take this key
        return "unavailable"

    async def _read(self, key: str) -> tuple[dict[str, Any], int | None]:
        try:
            reply = await self._client.get(key, deadline_ms=self._deadline_ms)
        except NotFound:
            return {"total": 0, "log": []}, None
        return reply.value, reply.version

    async def stop(self) -> None:
        await self._client.close()
