"""The small face that a broker has here: Kafka and RabbitMQ behind it.

A *source* hands out records of partitions (of a log) or queues, and takes commits. A *publisher*
sends and returns once the broker has confirmed. Who consumes is told of partitions that come and
go by a `Listener`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from services.consumer.messages import Message
from services.protocols.delivery import DeadLetter, Record


class BrokerDown(Exception):
    """The broker cannot be had now; what was asked for did not happen (or is repeated)."""


class CommitRefused(Exception):
    """The partition is no longer ours: the commit was not made and never will be."""


class Listener(Protocol):
    """Is told which partitions are ours."""

    async def assigned(self, partitions: Iterable[str]) -> None: ...

    async def revoked(self, partitions: Iterable[str]) -> None:
        """They are about to be taken away; until this returns, commits are still accepted."""

    def lost(self, partitions: Iterable[str]) -> None:
        """They are gone already."""


class Source(Protocol):
    """The consuming side."""

    async def start(self, listener: Listener) -> None:
        """Connect and join. Raises BrokerDown."""

    async def poll(self, records_max: int, within_s: float) -> list[Record]:
        """Some records, or none within `within_s`. Raises BrokerDown."""

    async def commit(self, offsets: Mapping[str, int]) -> None:
        """Everything before these offsets is dealt with. Raises BrokerDown, CommitRefused."""

    async def rewind(self, partition: str) -> None:
        """Go on from the last commit. Raises BrokerDown."""

    async def dead_letter(self, dead: DeadLetter) -> None:
        """Put a record aside; returns once that is safe. Raises BrokerDown."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def lag(self) -> dict[str, int]:
        """By partition, how many records there are that nobody has committed yet."""

    async def stop(self) -> None: ...


class Receipt(NamedTuple):
    """Where a message went; RabbitMQ tells no place."""

    partition: int | None = None
    offset: int | None = None


class Publisher(Protocol):
    """The producing side."""

    async def start(self) -> None:
        """Connect, and make the topics or exchanges. Raises BrokerDown."""

    @property
    def connected(self) -> bool: ...

    async def publish(self, message: Message) -> Receipt:
        """Send; returns once the broker has confirmed that it keeps the message.

        Raises Unavailable (not sent) or an Indefinite error.
        """

    async def stop(self) -> None: ...
