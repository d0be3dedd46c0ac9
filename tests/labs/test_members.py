"""A lab with Redis: what really ran is told in the first lines and kept in the verdict."""

from __future__ import annotations

import io
import json
from pathlib import Path

from redis.asyncio import Redis
from rich.console import Console

from labs.harness.lab import options, runner
from labs.harness.lab.definition import Lab, Variant
from labs.harness.lab.directory import new_run_directory
from labs.harness.lab.stage import Stage
from labs.harness.lab.story import Story
from labs.harness.testbed.description import ClusterSpec, MemberSpec


async def scenario(stage: Stage) -> None:
    """Cut c1 off from Redis; c2 still reaches it."""
    await stage.cluster.ready(20)
    async with (
        stage.fault(stage.nemesis.blackhole(("c1", "redis")), "cut: c1 from redis"),
        Redis.from_url(f"redis://{stage.cluster.address('c2', 'redis')}") as c2,
    ):
        reached = bool(await c2.set("key", "value"))
    subject = stage.result.expected == "holds"
    stage.claim("c2 reaches Redis", reached == subject, "it set a key", control_breaks=True)


def with_redis(_nodes: int) -> ClusterSpec:
    return ClusterSpec("redis", (), ("c1", "c2"), members=(MemberSpec("redis", "redis"),))


LAB = Lab(
    name="members",
    questions=(1,),
    question="Is Redis there?",
    variants=(
        Variant("subject", "holds", "it is", with_redis),
        Variant("control", "breaks", "it says that it is not", with_redis),
    ),
    scenario=scenario,
    answer=lambda results: f"It is: {len(results)} times.",
)


def test_a_verdict_names_the_server_that_ran(tmp_path: Path) -> None:
    """`verdict.json` and the story say which Redis it was, before anything is claimed of it."""
    told = io.StringIO()
    directory = new_run_directory(LAB.name, tmp_path)
    chosen = options.check(on="local", seed="3")
    runner.run(LAB, chosen, Story(Console(file=told, width=100)), directory)

    verdict = json.loads((directory / "verdict.json").read_text())
    assert verdict["verdict"] == "pass", verdict["reason"]
    for variant in verdict["variants"]:
        assert variant["members"]["redis"].startswith(("valkey ", "redis-server "))
    flavour = verdict["variants"][0]["members"]["redis"]
    lines = told.getvalue()
    assert 0 < lines.index(f"redis: {flavour}") < lines.index("cut: c1 from redis")
    assert "1 cut link" in verdict["faults"][0]["felt_how"]
