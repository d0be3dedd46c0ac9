"""A runner to be killed: starts a cluster, says on stdout how far it is, and goes on for ever.

    python -m tests.harness.testbed.runner RUN_DIRECTORY [MODULE …]

A line of JSON for each stage: "imported", "launched", "started", with n1 paused "ready", and at
Ctrl-C after that "ending".
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from labs.harness.testbed import launcher, orderly


def tell(stage: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"stage": stage, **more}) + "\n")
    sys.stdout.flush()


async def run(launched: launcher.Launched) -> None:
    from labs.harness.testbed.local import LocalTestbed
    from tests.harness.testbed.contract import echo_cluster

    tell("launched", zygote=launched.process.pid, directory=str(launched.directory))
    async with LocalTestbed(launched.log.parent, launched=launched) as testbed:
        while True:
            async with testbed.cluster(echo_cluster()) as cluster:
                addresses = [cluster.address(client, node) for client, node in cluster.links]
                addresses += map(cluster.direct_address, cluster.nodes)
                tell("started", addresses=addresses)
                await cluster.ready(20)
                statuses = await cluster.statuses()
                await cluster.pause("n1")
                tell("ready", pids=[said["pid"] for said in statuses.values() if said])
                try:
                    for _ in range(50):
                        await cluster.kill("n2")
                        await cluster.start("n2")
                        await cluster.ready(20, nodes=["n2"])
                except asyncio.CancelledError:
                    tell("ending")
                    raise


if __name__ == "__main__":
    tell("imported")
    modules = ("labs.harness.links", "tests.harness.testbed.echo", *sys.argv[2:])
    orderly.run(run(launcher.launch(Path(sys.argv[1]), modules)))
