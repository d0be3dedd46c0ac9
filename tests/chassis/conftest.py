"""The chassis on both event loops: uvloop's, which nodes run on, and asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """They differ where it hurts: what a socket object can do, when a lost connection shows."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
