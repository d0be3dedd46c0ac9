"""Below the WebSocket of a link: send without a task of its own, hang up without delay."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from types import coroutine
from typing import Any


def hang_up(descriptor: int) -> None:
    """End the connection of this socket in both directions, at once.

    On a duplicate, since the socket that uvloop shows of a connection has no `shutdown()`.
    """
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def start(sending: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Run `sending` as far as it goes without waiting; None when it is done.

    Otherwise what is left of it, to be awaited; an exception of its is raised there, too.
    """
    try:
        return _resume(sending, sending.send(None))
    except StopIteration:
        return None
    except Exception as exc:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(exc)
        failed.exception()  # looked at: nobody complains if the writer is cancelled instead
        return failed


@coroutine
def _resume(started: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """The rest of a coroutine that waits for `waits_for`: as `yield from`, but from there on."""
    while True:
        try:
            value = yield waits_for
        except BaseException as exc:
            step = partial(started.throw, exc)
        else:
            step = partial(started.send, value)
        try:
            waits_for = step()
        except StopIteration:
            return
