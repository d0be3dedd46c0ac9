"""A runner to be killed, with Redis and Kafka in its cluster; see `runner.py`.

    python -m tests.harness.testbed.members_runner RUN_DIRECTORY [MODULE …]

Lines of JSON: "launched", "started" (with all pids), and with Redis paused "ready".
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from labs.harness.testbed import launcher, orderly
from tests.harness.testbed.runner import tell


async def run(launched: launcher.Launched) -> None:
    from labs.harness.testbed.description import MemberSpec
    from labs.harness.testbed.local import LocalTestbed
    from tests.harness.testbed.members import member_cluster

    tell("launched", zygote=launched.process.pid, directory=str(launched.directory))
    spec = member_cluster(MemberSpec("redis", "redis"), MemberSpec("kafka", "kafka"), nodes=1)
    async with (
        LocalTestbed(launched.log.parent, launched=launched) as testbed,
        testbed.cluster(spec) as cluster,
    ):
        addresses = [cluster.address(*link) for link in cluster.links]
        addresses += map(cluster.direct_address, cluster.members)
        pids = {name: process.pid for name, process in cluster._processes.items()}
        tell("started", addresses=addresses, pids=pids, flavours=cluster.member_flavours())
        await cluster.ready(60)
        await cluster.pause("redis")
        tell("ready", pids=list(pids.values()))
        await asyncio.Event().wait()


if __name__ == "__main__":
    modules = ("labs.harness.links", "tests.harness.testbed.echo", *sys.argv[2:])
    orderly.run(run(launcher.launch(Path(sys.argv[1]), modules)))
