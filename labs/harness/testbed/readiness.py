"""Is it ready? What a node's own `/health/ready` does not say.

A member is asked in its own protocol. What is asked is the kind's (`Kind.unready`); this is the
connection to ask on, and its end. And a load balancer is ready before it has found every backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from labs.harness.testbed.description import MemberKind
from labs.harness.testbed.members import KINDS


async def unready(kind: MemberKind, address: str, within_s: float) -> str:
    """Why the server at `address` ("host:port") is not ready; empty when it is. Never raises."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                return await KINDS[kind].unready(reader, writer)
            finally:
                writer.transport.abort()
    except asyncio.IncompleteReadError:
        return "it closed the connection"
    except (OSError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"


def not_found(status: Mapping[str, Any]) -> str:
    """Which backends a node says it may not ask yet; empty when it may ask all, or has none."""
    backends = status.get("backends")
    if not isinstance(backends, Mapping):
        return ""
    return ", ".join(
        f"may not ask {name} yet" for name, each in backends.items() if not each["available"]
    )
