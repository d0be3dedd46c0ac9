"""What real nodes leave behind: whole traces, ids on each line, no payload in any log.

Method: a lab without faults, hundreds of operations on a real cluster, and requests that carry
payload wherever a request can carry any. Its directory is then read as the report reads it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rich.console import Console

from labs.harness.lab import options, runner
from labs.harness.lab.definition import Lab, Variant
from labs.harness.lab.reporting import write_report
from labs.harness.lab.stage import Stage
from labs.harness.lab.story import Story
from labs.harness.report.data import Run
from labs.harness.report.load import load_run
from labs.harness.report.trace import orphans
from labs.harness.testbed.description import kv_cluster
from labs.harness.workloads.register import RegisterWorkload
from services.chassis.telemetry import TEXT_MAX

pytestmark = pytest.mark.slow

PAYLOAD = "payload." * 200  # 1600 letters of a pattern that nothing else has


async def scenario(stage: Stage) -> None:
    """Load from two places, then requests with much in them, good and bad."""
    leader = await stage.primary()
    load = RegisterWorkload(places=("c1", "c2"), seed=stage.seed, deadline_ms=5_000)
    async with stage.running(load):
        await stage.require(lambda: load.acknowledged() >= 400, within_s=60, what="400 operations")
    url = f"http://{stage.cluster.address('c1', leader)}/kv/"
    async with aiohttp.ClientSession() as session:
        for method, key, body, headers in _payloads():
            async with session.request(method, url + key, data=body, headers=headers) as answer:
                await answer.read()
    stage.claim("it runs", True, "it ran")


def _payloads() -> Iterator[tuple[str, str, bytes | None, dict[str, str]]]:
    value = json.dumps({"value": PAYLOAD * 10}).encode()
    plain = {"Content-Type": "application/json"}
    yield "PUT", "big-value", value, plain
    yield "PUT", PAYLOAD[:1000], value, plain
    yield "GET", PAYLOAD[:1000], None, {}
    yield "GET", PAYLOAD, None, {}
    yield "GET", f"x?consistency={PAYLOAD}", None, {}
    yield "PUT", "x", PAYLOAD.encode(), plain
    yield "PUT", "x", value, {"Content-Type": PAYLOAD}
    yield "PUT", "x", value, {**plain, "If-Match": PAYLOAD}
    yield "PUT", "x", value, {**plain, "Idempotency-Key": PAYLOAD}
    yield "PUT", "x", value, {**plain, "X-Request-Id": PAYLOAD, "traceparent": PAYLOAD}
    yield "PAYLOADPAYLOADPAYLOADPAYLOADPAYLOAD", "x", None, {"X-Deadline-Ms": PAYLOAD}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("runs") / "calm"
    directory.mkdir()

    def cluster(nodes: int) -> Any:
        return kv_cluster(nodes, protocol="raft", environment={"KV_ELECTION_TICKS": "200"})

    lab = Lab(
        name="calm", questions=(), question="?", scenario=scenario, answer=lambda results: "",
        variants=(Variant("raft", "holds", "", cluster), Variant("again", "breaks", "", cluster)),
    )  # fmt: skip
    story = Story(Console(file=io.StringIO()))
    verdict, _ = runner.run(lab, options.check(on="local", seed="1"), story, directory)
    assert all(each["trouble"] is None for each in verdict.variants), verdict
    write_report(directory, story)
    return load_run(directory, whole=True)


def test_spans_have_their_parents(run: Run) -> None:
    """Every span's parent is present for at least 99.9 % of the operations."""
    for variant in run.variants:
        traces = {op.extra["trace_id"] for op in variant.history.ops}
        torn = {line.trace_id for line in orphans(variant.lines)}

        assert len(traces) >= 400
        assert len(torn & traces) <= len(traces) / 1000, sorted(torn)[:5]


def test_every_operation_reached_a_node_and_writes_were_replicated(run: Run) -> None:
    """A trace is more than its root: request spans for all, replication for acknowledged writes."""
    for variant in run.variants:
        told: dict[str | None, set[str]] = {}
        for line in variant.lines:
            told.setdefault(line.trace_id, set()).add(line.event)
        ops = variant.history.ops
        alone = [op for op in ops if "request" not in told[op.extra["trace_id"]]]
        writes = [op for op in ops if op.type == "ok" and op.f != "read"]
        unshared = [op for op in writes if "replicate" not in told[op.extra["trace_id"]]]

        assert len(alone) <= len(ops) / 1000
        assert len(writes) > 50
        assert len(unshared) <= len(writes) / 1000


def test_each_line_of_a_request_carries_its_ids(run: Run) -> None:
    """Trace, span and request id on each; the request id is the client's own on every node."""
    for variant in run.variants:
        request_of = {op.extra["trace_id"]: op.extra["request_id"] for op in variant.history.ops}
        for path in sorted(variant.directory.glob("*.events.jsonl")):
            for line in map(json.loads, path.read_text().splitlines()):
                if line["kind"] != "span":
                    continue
                assert line["trace_id"]
                assert line["span_id"]
                assert line["request_id"], line
                if line["trace_id"] in request_of:
                    assert line["request_id"] == request_of[line["trace_id"]], line


def test_no_payload_in_any_log(run: Run) -> None:
    """No text above 256 bytes in any line of any log, whatever a request carried."""
    looked = 0
    for path in sorted(run.directory.rglob("*")):
        if path.suffix not in (".log", ".jsonl") or path.name in ("history.jsonl", "faults.jsonl"):
            continue
        assert PAYLOAD[:300] not in path.read_text(), path
        for line in path.read_text().splitlines():
            fields = json.loads(line)
            for name, text in fields.items():
                looked += 1
                if isinstance(text, str):
                    assert len(text.encode()) <= TEXT_MAX, f"{path.name}: {name} is {text[:300]!r}"

    assert looked > 10_000


def test_frames_are_told_at_both_ends(run: Run) -> None:
    """Without a fault, what a node sent came, and it came later than it was sent."""
    for variant in run.variants:
        late = [each for each in variant.messages if each.received_us is None]
        flights = [each.received_us - each.sent_us for each in variant.messages
                   if each.received_us is not None]  # fmt: skip

        assert len(variant.messages) > 1000
        # What was under way when the nodes were stopped.
        assert len(late) <= len(variant.messages) / 100
        assert min(flights) >= 0


def test_a_run_of_nothing_unusual_stays_small(run: Run) -> None:
    """At most 3 MB for a usual run, Bokeh included."""
    assert (run.directory / "report.html").stat().st_size <= 3_000_000
    assert not any(path.suffix == ".partial" for path in Path(run.directory).iterdir())
