"""Parts of a scenario side by side, where neither is in the other's way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run them to their end, or to the first failure: it ends the others, and is raised as it is.

    (A task group would wrap it, and the runner would not know an invalid run when it sees one.)
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            if not task.cancelling():  # else, at Ctrl-C, it is undoing what it did: let it
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
