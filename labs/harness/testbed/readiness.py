"""Ask a member, in its own protocol, whether it is ready: it has no `/health/ready`, as nodes have.

What is asked is the kind's (`Kind.unready`); this is the connection to ask on, and its end.
"""

from __future__ import annotations

import asyncio

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
