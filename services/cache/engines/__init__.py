"""What holds the bytes: Redis or Memcached, behind the few commands that both have.

Errors are mapped in the engines and nowhere else: `EngineLost` (no answer, or none to be trusted:
it may have happened) and `EngineRefused` (it answered, and did not do it: no memory left).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class EngineError(Exception):
    """The engine did not do what it was asked."""


class EngineLost(EngineError):
    """No answer that can be trusted. Indefinite: it may have happened."""


class EngineRefused(EngineError):
    """It answered, and did nothing. It is alive."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """As the server counts them, since it started. `memory_bytes`: used, `items`: kept."""

    items: int
    memory_bytes: int
    evictions: int


class Engine(Protocol):
    """One cache server. Every call raises EngineLost or EngineRefused, within `timeout_s`.

    `ttl_ms` is when the server may forget; never earlier, and up to a second later (Memcached
    counts seconds), so an entry carries its own expiry.
    """

    async def get(self, key: str) -> bytes | None:
        """What stands under `key`."""

    async def set(self, key: str, data: bytes, ttl_ms: int) -> None:
        """Put it there, whatever stands there."""

    async def add(self, key: str, data: bytes, ttl_ms: int) -> bool:
        """Put it there if nothing stands there. Atomic."""

    async def swap(self, key: str, expected: bytes, data: bytes, ttl_ms: int) -> bool:
        """Put it there if exactly `expected` stands there. Atomic."""

    async def delete(self, key: str) -> None:
        """Let nothing stand there."""

    async def flush(self) -> None:
        """Forget everything."""

    async def stats(self) -> EngineStats:
        """What the server says of itself."""

    async def close(self) -> None:
        """Hang up."""
