"""A write's trace at a collector: the node that answered, and those that replicated it."""

from __future__ import annotations

from pathlib import Path

from labs.harness.testbed.cluster import until
from labs.harness.testbed.description import kv_cluster
from labs.harness.testbed.local import LocalTestbed
from labs.harness.workloads.tracing import new_trace
from services.kv.client import KvClient
from tests.chassis.otlp import a_collector
from tests.harness.testbed.contract import READY_WITHIN_S

SEEN_WITHIN_S = 20.0


async def test_a_write_is_one_trace_over_all_nodes(tmp_path: Path) -> None:
    """Real nodes, real OTLP: the request's span hangs below the client's, replication below it."""
    async with a_collector() as collector, LocalTestbed(tmp_path) as testbed:
        spec = kv_cluster(3, protocol="raft", environment={"KV_OTLP": collector.url})
        async with testbed.cluster(spec) as cluster:
            await cluster.ready(READY_WITHIN_S)
            addresses = {node: cluster.direct_address(node) for node in cluster.nodes}
            trace = new_trace()
            async with KvClient(addresses) as client:
                reply = await client.put("key", 1, headers=trace.headers)

            def mine() -> list[str]:
                spans = [each for each in collector.spans if each.trace_id == trace.trace_id]
                return sorted(each.name for each in spans if each.status == 0)

            whole = ["PUT /kv", "replicate", "replicate"]
            await until(lambda: mine()[-3:] == whole, SEEN_WITHIN_S, "the whole trace is there")
    spans = [each for each in collector.spans if each.trace_id == trace.trace_id]
    answered = next(
        each for each in spans if each.attributes.get("http.response.status_code") == 200
    )
    assert answered.parent_span_id == trace.span_id
    assert answered.resource["service.instance.id"] == reply.node
    assert answered.attributes["request_id"] == trace.request_id
    replicated = [each for each in spans if each.name == "replicate"]
    assert {each.parent_span_id for each in replicated} == {answered.span_id}
    others = {each.resource["service.instance.id"] for each in replicated}
    assert others == set(cluster.nodes) - {reply.node}
    assert {each.resource["service.name"] for each in spans} == {"kv"}
