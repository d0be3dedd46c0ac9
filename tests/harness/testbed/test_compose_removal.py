"""What the engine does not let go of is told, and left to the reaper and the next run."""

from __future__ import annotations

import pytest

from labs.harness.testbed import compose_command, compose_owners
from labs.harness.testbed.errors import TestbedError


async def test_a_network_that_stays_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker network rm` fails for as long as the engine has an endpoint in it."""

    def docker(*arguments: str, check: bool = True) -> str:
        return "abc\n" if arguments[:2] == ("network", "ls") else ""

    monkeypatch.setattr(compose_owners, "_docker", docker)
    monkeypatch.setattr(compose_owners, "RETRY_S", 0)
    with pytest.raises(TestbedError, match=r"p can't be removed, still there .*: 1 network"):
        await compose_command.remove("p", None, complete=True)
    assert compose_owners.remove("a=b") == ("1 network",), "a sweep does not stop a run for it"
