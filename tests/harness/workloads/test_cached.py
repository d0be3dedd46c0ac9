"""The load on a cache: a bug of its own is not taken for a failure of the service."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labs.harness.history import Recorder, load
from labs.harness.testbed.waiting import until
from labs.harness.workloads.cached import CacheLoad
from services.chassis.errors import DeadlineExceeded, NotFound


class Client:
    """Reads raise what they are told to; writes are done."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def get(self, *_: Any, **__: Any) -> Any:
        raise self.error

    async def put(self, *_: Any, **__: Any) -> None: ...


def a_load(client: Client) -> CacheLoad:
    users: Any = SimpleNamespace(nodes=("c1",), clients={"c1": client})
    return CacheLoad(users, seed=1, keys=2, reads_per_s=500, writes_per_s=500)


async def test_what_a_read_raises_by_mistake_is_raised_in_the_end(tmp_path: Path) -> None:
    reads = a_load(Client(RuntimeError("a bug of the load")))
    with Recorder(tmp_path / "history.jsonl", time.monotonic_ns) as recorder:
        await reads.start(None, recorder)  # type: ignore[arg-type]
        await until(lambda: any(each.f == "write" for each in reads.ended), 10)
        with pytest.raises(RuntimeError, match="a bug of the load"):
            await reads.stop()


@pytest.mark.parametrize(
    ("error", "kind", "answered"),
    [(DeadlineExceeded("late"), "fail", False), (NotFound("nothing"), "ok", True)],
)
async def test_errors_of_the_service_are_kept_as_such(
    tmp_path: Path, error: Exception, kind: str, answered: bool
) -> None:
    """A read that nobody answered has failed; that there is no such key is an answer."""
    reads = a_load(Client(error))
    with Recorder(tmp_path / "history.jsonl", time.monotonic_ns) as recorder:
        await reads.start(None, recorder)  # type: ignore[arg-type]
        await until(lambda: any(each.f == "read" for each in reads.ended), 10)
        await reads.stop()
    assert {each.answered for each in reads.ended if each.f == "read"} == {answered}
    assert {op.type for op in load(tmp_path / "history.jsonl").ops if op.f == "read"} == {kind}
