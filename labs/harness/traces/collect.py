"""Put together the traces of a run from what its clients and its nodes have written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from labs.harness.history import History, Op, load
from labs.harness.report.data import asked, ended_ns
from labs.harness.report.events import Wide, read
from labs.harness.testbed.cluster import Cluster, until
from labs.harness.traces.spans import Span
from labs.harness.workloads.tracing import new_trace

ANSWER_WITHIN_S = 5.0
WRITTEN_WITHIN_S = 10.0


@dataclass(slots=True)
class Trace:
    """One operation: the client's own span, what the services tell of its trace, and who wrote
    lines with its request id (whatever their trace)."""

    op: Op
    root: Span
    spans: list[Span] = field(default_factory=list)
    told_by: set[str] = field(default_factory=set)

    @property
    def all(self) -> list[Span]:
        return [self.root, *self.spans]

    @property
    def orphans(self) -> list[Span]:
        """Spans whose parent nobody told of, the client neither."""
        known = {span.span_id for span in self.all}
        return [span for span in self.spans if span.parent_id not in known]

    def joined(self, services: Iterable[str]) -> bool:
        """Has a node of each of these services (the beginnings of their names) told of it?"""
        return all(any(each.startswith(service) for each in self.told_by) for service in services)

    def whole(self, services: Iterable[str]) -> bool:
        """Is a span of each of these services in the trace, and each span below one that is?"""
        nodes = {span.node for span in self.spans}
        everyone = all(any(node.startswith(service) for node in nodes) for service in services)
        return everyone and not self.orphans


def collect(history: History, telemetry: Iterable[Path], start_ns: int) -> list[Trace]:
    """The traces of all operations that ended, in the order in which they began.

    Args:
        telemetry: the nodes' files of wide events.
        start_ns: when the history's time began, on the machine's clock.
    """
    traces = [trace for op in history.ops if (trace := _begun(op)) is not None]
    by_trace = {trace.root.trace_id: trace for trace in traces}
    by_request = {trace.root.request_id: trace for trace in traces}
    for path in telemetry:
        for found in read(path) if path.exists() else ():
            if found is None or found[0].kind != "span":
                continue
            wide, line = found
            if (trace := by_trace.get(wide.trace_id or "")) is not None:
                trace.spans.append(_span(wide, start_ns, len(line) + 1))
            if (trace := by_request.get(wide.request_id)) is not None:
                trace.told_by.add(wide.node)
    return traces


def _begun(op: Op) -> Trace | None:
    ended, trace_id = ended_ns(op), op.extra.get("trace_id")
    if ended is None or trace_id is None:
        return None
    root = Span(
        trace_id,
        op.extra["span_id"],
        None,
        op.client or "client",
        "client",
        op.invoke_ns // 1000,
        ended // 1000,
        op.extra.get("request_id"),
        what=asked(op),
        bad=op.type != "ok",
    )
    return Trace(op, root)


def _span(wide: Wide, start_ns: int, size: int) -> Span:
    end_us = (wide.monotonic_ns - start_ns) // 1000
    return Span(
        wide.trace_id or "",
        wide.span_id or "",
        wide.parent_span_id,
        wide.node,
        wide.event,
        end_us - (wide.duration_us or 0),
        end_us,
        wide.request_id,
        wide.peer,
        f"{wide.method} {wide.path}".strip(),
        wide.status >= 500 or (wide.event == "replicate" and wide.outcome != "ok"),
        size,
    )


async def gather(cluster: Cluster, history: Path, start_ns: int) -> list[Trace]:
    """`collect` of a running cluster: all that its nodes have told until now.

    Raises TimedOut when they do not write it down.
    """
    await written(cluster, cluster.nodes, WRITTEN_WITHIN_S)
    return collect(load(history), map(cluster.telemetry, cluster.nodes), start_ns)


def slower_than(traces: Iterable[Trace], ms: float) -> list[Trace]:
    """Those whose caller waited longer than that, the slowest first."""
    slow = [trace for trace in traces if trace.root.duration_us > ms * 1000]
    return sorted(slow, key=lambda trace: -trace.root.duration_us)


async def written(cluster: Cluster, nodes: Iterable[str], within_s: float) -> None:
    """Wait until everything that `nodes` have told until now is in their files.

    Events are written in order, some milliseconds after they happened. So ask each node a question
    under an id of its own; when that id is in the file, all that came before it is. Raises
    TimedOut.
    """
    marks = {node: f"written-{new_trace().trace_id}" for node in nodes}
    for node, mark in marks.items():
        await _ask(cluster, node, mark)

    def all_there() -> bool:
        for node, mark in list(marks.items()):
            if mark.encode() in _tail(cluster.telemetry(node)):
                del marks[node]
        return not marks

    await until(all_there, within_s, "the nodes have written what they know")


async def _ask(cluster: Cluster, node: str, mark: str) -> None:
    headers: Mapping[str, str] = {"X-Request-Id": mark}
    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
    url = f"http://{cluster.direct_address(node)}/health/live"
    async with cluster.session.get(url, headers=headers, timeout=timeout) as response:
        await response.read()


def _tail(path: Path, size: int = 1 << 18) -> bytes:
    """The end of a file; a node writes far less than that while somebody waits."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - size))
        return file.read()
