"""The transactional outbox: an order and the message that tells of it are written in one step.

A service that writes to its database and then to a broker (or the other way round) is killed in
between some day: the order is there and nobody hears of it, or everybody hears of an order that
does not exist. So the message is first written *to the database*, in the same transaction as the
order; a relay sends what stands in this outbox, in order, and removes it once the broker has
confirmed (Richardson, Microservices Patterns, §3.3). Killed between the two it sends again: at
least once, with the same id, which an idempotent consumer sees.

    Redis:   order:<id>  the state      outbox:<node>  messages that are not confirmed yet
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from services.chassis.errors import DeadlineExceeded, ServiceError
from services.consumer.broker import Publisher
from services.consumer.config import ConsumerConfig
from services.consumer.effects import REDIS_ERRORS, new_redis
from services.consumer.messages import Message

RELAYED_AT_ONCE = 100
LOOK_AGAIN_S = 0.2

# Order and message, or neither. The second request with the same id changes nothing.
_WRITE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX') then
  if ARGV[2] ~= '' then redis.call('RPUSH', KEYS[2], ARGV[2]) end
  return 1
end
return 0
"""


class Outbox:
    """The orders of one node, and its relay (`run`)."""

    def __init__(self, config: ConsumerConfig, publisher: Publisher, log: Any) -> None:
        assert config.redis_address is not None, "checked with the configuration"
        self._publisher = publisher
        self._log = log
        self._client = new_redis(config.redis_address, config.request_timeout_ms / 1000)
        self._write = self._client.register_script(_WRITE)
        self._key = f"outbox:{config.node}"
        self._filled = asyncio.Event()
        self.relayed = 0
        self.waiting = 1  # not known yet: what an earlier life has left

    async def order(self, message: Message, *, outbox: bool) -> bool:
        """Keep the order, with `outbox` its message too; was it new? Raises DeadlineExceeded."""
        entry = msgspec.msgpack.encode(message) if outbox else b""
        try:
            new = await self._write(
                keys=[f"order:{message.id}", self._key], args=[message.value, entry]
            )
        except REDIS_ERRORS as error:
            raise DeadlineExceeded(f"Redis did not answer: {error!r}") from error
        self.waiting += 1 if new and outbox else 0
        self._filled.set()
        return bool(new)

    async def run(self) -> None:
        """Relay, until cancelled."""
        while True:
            self._filled.clear()
            try:
                while await self._relay():
                    pass
            except (*REDIS_ERRORS, ServiceError) as error:
                # Nothing is removed that was not confirmed, so there is nothing to repair.
                self._log.warning("the outbox waits", error=repr(error))
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._filled.wait()
            except TimeoutError:
                pass

    async def _relay(self) -> int:
        """Send the oldest messages in order, remove those that were confirmed; how many?"""
        entries: list[Any] = await self._client.lrange(self._key, 0, RELAYED_AT_ONCE - 1)
        for entry in entries:
            await self._publisher.publish(msgspec.msgpack.decode(entry, type=Message))
            await self._client.lpop(self._key)
            self.relayed += 1
        self.waiting = await self._client.llen(self._key)
        return self.waiting

    async def stop(self) -> None:
        """Hang up."""
        await self._client.aclose()
