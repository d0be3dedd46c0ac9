"""`kill -9` of all nodes under load, and restart: no acknowledged write is lost.

Method: one cluster, one load; round after round every node dies at the same moment, in the middle
of what it does, and starts again from its disk. At the end every key is read once more.
ROUNDS=100 runs a hundred of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from labs.harness.checkers import check_linearizable, check_lost_writes
from labs.harness.history import Recorder, load
from labs.harness.testbed.cluster import until
from labs.harness.testbed.description import kv_cluster
from labs.harness.testbed.local import LocalTestbed
from labs.harness.workloads.register import RegisterWorkload
from tests.labs.test_partition import wait_until_gone

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("ROUNDS", "4"))
SEED = int(os.environ.get("SEED") or time.time_ns() % 10_000)
TIMERS = {"KV_TICK_MS": "10", "KV_ELECTION_TICKS": "20", "KV_SNAPSHOT_ENTRIES": "200"}


async def test_killing_all_nodes_loses_no_acknowledged_write(tmp_path: Path) -> None:
    """A reply leaves only after the entry is on a majority's disks (persist → send → apply →
    reply), so what was acknowledged survives the death of every process."""
    print(f"reproduce the load: SEED={SEED} ROUNDS={ROUNDS} pytest {__file__}")
    spec = kv_cluster(5, protocol="raft", environment=TIMERS)
    workload = RegisterWorkload(places=("c1", "c2"), seed=SEED)
    path = tmp_path / "history.jsonl"
    async with LocalTestbed(tmp_path / "run") as testbed, testbed.cluster(spec) as cluster:
        with Recorder(path, time.monotonic_ns) as recorder:
            await cluster.ready(20)
            await workload.start(cluster, recorder)
            for _ in range(ROUNDS):
                since = recorder.now_ns()
                await until(lambda since=since: workload.writes("c1", since_ns=since) >= 20,
                            20, "20 more writes acknowledged")  # fmt: skip
                await asyncio.gather(*map(cluster.kill, cluster.nodes))
                await asyncio.gather(*map(cluster.start, cluster.nodes))
                await cluster.ready(20)
            await workload.stop()
            await workload.final_reads(cluster, "c1", within_s=20)
    history = load(path)
    writes = check_lost_writes(history)

    assert writes.valid is True, writes
    assert writes.stats["acknowledged"] >= 20 * ROUNDS
    assert check_linearizable(history, "register").valid is True
    wait_until_gone(os.getpid())
