"""Ctrl-C, also an impatient one, and what of a run is cleaned up in the meantime: all of it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from labs.harness.testbed import orderly

STEPS = 2_000


@pytest.fixture(autouse=True)
def as_in_the_foreground() -> Iterator[None]:
    """Whoever runs these tests in the background has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def hammered() -> Iterator[None]:
    """SIGINT to this process as fast as it goes."""
    enough = threading.Event()

    def hammer() -> None:
        while not enough.wait(0.0001):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_only_the_first_counts() -> None:
    """ "The history that goes wrong": wake-ups by the thousand while the interrupts hail down."""
    steps: list[int] = []

    async def end() -> None:
        for step in range(STEPS):
            await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
            steps.append(step)

    async def main() -> None:
        try:
            with hammered():
                await asyncio.Event().wait()
        finally:
            with hammered():
                await end()

    with pytest.raises(KeyboardInterrupt):
        orderly.run(main())
    assert steps == list(range(STEPS))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_an_interrupt_it_is_asyncio_run() -> None:
    async def returns() -> int:
        return 7

    async def raises(error: BaseException) -> None:
        raise error

    assert orderly.run(returns()) == 7
    for error in (LookupError(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            orderly.run(raises(error))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_ignores_interrupts_goes_on_to() -> None:
    """A background job of a shell: Ctrl-C is meant for another one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def main() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        return "done"

    assert orderly.run(main()) == "done"
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
