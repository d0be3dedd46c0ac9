"""The data that the page's own script draws from: compact rows, compressed, safe inside HTML."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import msgspec

from labs.harness.report.data import LEVELS, Line, Run, VariantRun, did, ended_ns, shown
from labs.harness.report.trace import waited_for


def pack(run: Run) -> str:
    """`payload` as JSON, gzipped, in base64: no letter of it means anything to an HTML parser."""
    data = msgspec.json.encode(payload(run))
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def payload(run: Run) -> dict[str, Any]:
    """Rows per variant; `report/page/data.js` gives the columns their names."""
    return {"levels": list(LEVELS), "variants": [_variant(each) for each in run.variants]}


class _Table:
    """Texts that occur often, each kept once; rows hold its number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str | None) -> int:
        """-1 for no text."""
        if text is None:
            return -1
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]


def _variant(variant: VariantRun) -> dict[str, Any]:
    texts = _Table()
    by_trace = _by_trace(variant)
    ops = []
    for at in variant.opened:
        op = variant.history.ops[at]
        ended = ended_ns(op)
        ops.append(
            [
                variant.number(at),
                texts.number(op.client or "client"),
                op.process,
                did(op),
                texts.number(op.type),
                op.invoke_ns // 1000,
                None if ended is None else ended // 1000,
                texts.number(op.node),
                texts.number(shown(op.error) if op.error else None),
                texts.number(_text(op.extra.get("trace_id"))),
                _text(op.extra.get("request_id")),
                waited_for(by_trace.get(op.extra.get("trace_id"), [])),
            ]
        )
    lines = [
        [
            line.at_us,
            texts.number(line.node),
            LEVELS.index(line.level),
            texts.number(line.event),
            line.text,
            texts.number(_text(line.trace_id)),
            line.request_id and shown(line.request_id),
            line.span_id and shown(line.span_id),
            line.parent_id and shown(line.parent_id),
            line.duration_us,
            int(line.bad),
        ]
        for line in variant.lines
    ]
    messages = [
        [
            message.sent_us,
            None if message.received_us is None else message.received_us - message.sent_us,
            texts.number(shown(message.src)),
            texts.number(shown(message.dst)),
            texts.number(shown(message.names)),
            message.messages,
            message.term,
        ]
        for message in variant.messages
    ]
    return {
        "name": variant.name,
        "nodes": nodes_of(variant),
        "end": variant.end_us,
        "first": variant.first,
        "faults": [
            [fault.name, fault.target, _us(fault.injected_at), _us(fault.healed_at)]
            for fault in variant.faults
        ],
        "stays": [[*stay] for stay in variant.stays],
        "ops": ops,
        "lines": lines,
        "messages": messages,
        "omitted": variant.omitted,
        "texts": texts.texts,
    }


def _by_trace(variant: VariantRun) -> dict[str | None, list[Line]]:
    """The lines of each trace, if there are calls between services; else nobody needs them."""
    found: dict[str | None, list[Line]] = {}
    if any(line.event == "call" for line in variant.lines):
        for line in variant.lines:
            found.setdefault(line.trace_id, []).append(line)
    return found


def nodes_of(variant: VariantRun) -> list[str]:
    """The nodes, as the run names them, or as the logs do."""
    return variant.result.nodes or sorted({stay.node for stay in variant.stays})


def _text(value: Any) -> str | None:
    return None if value is None else shown(str(value))


def _us(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e6)
