"""A container is paused although the engine's first tries fail; other failures are told at once."""

from __future__ import annotations

from unittest.mock import AsyncMock, Mock

import aiodocker
import pytest

from labs.harness.testbed.compose_containers import PAUSE_ATTEMPTS, Containers
from labs.harness.testbed.errors import TestbedError


def containers(*answers: object) -> tuple[Containers, AsyncMock]:
    made = Containers.__new__(Containers)
    container = Mock(pause=AsyncMock(side_effect=answers))
    made._container = Mock(return_value=container)  # type: ignore[method-assign]
    made._reach = AsyncMock()  # type: ignore[method-assign]
    return made, container.pause


def refusal(why: str) -> aiodocker.DockerError:
    return aiodocker.DockerError(500, why)


async def test_a_freezer_that_gave_up_is_asked_again() -> None:
    """runc's word for tasks that were slow to stop: "unable to freeze"."""
    made, pause = containers(*[refusal("OCI runtime pause failed: unable to freeze")] * 2, None)
    await made.pause("n1-app")
    assert pause.await_count == 3

    made, pause = containers(*[refusal("unable to freeze")] * (PAUSE_ATTEMPTS + 1))
    with pytest.raises(TestbedError, match="unable to freeze"):
        await made.pause("n1-app")
    assert pause.await_count == PAUSE_ATTEMPTS


async def test_what_will_not_change_is_not_asked_again() -> None:
    made, pause = containers(refusal("no such container"), None)
    with pytest.raises(TestbedError, match="no such container"):
        await made.pause("n1-app")
    assert pause.await_count == 1
