"""A counterexample drawn: a lane per process, the forbidden interval and the faults across them.

Time is not to scale: the instants that matter are evenly spaced, because an acknowledgement 200 us
before a read is as telling as one a second before it, and both have to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from labs.harness.checkers.result import Counterexample
from labs.harness.checkers.story import Times, micros, partitions
from labs.harness.history import History, Op


@dataclass(slots=True)
class _Drawing:
    """Instants in order, lanes, bands of faults."""

    instants: list[int] = field(default_factory=list)
    lanes: dict[int, list[Op]] = field(default_factory=dict)
    faults: list[tuple[int, int, str]] = field(default_factory=list)
    end_ns: int = 0
    times: Times | None = None

    def place(self, time_ns: int) -> int:
        return self.instants.index(time_ns)

    def axis(self) -> list[tuple[int, str]]:
        """The instants with their texts, as precise as it takes to tell neighbours apart."""
        assert self.times is not None
        shown, texts = self.instants[:-1], []
        for digits in (3, 6, 9):
            texts = [self.times.at(instant, digits) for instant in shown]
            if len(set(texts)) == len(texts):
                break
        return list(zip(shown, texts, strict=True))


def label(op: Op) -> str:
    """`w 42`, `r 41`, `cas 1>2`; a question mark when nobody knows whether it happened."""
    parts = micros(op.output if op.type == "ok" else op.value)
    if parts is not None:
        text = "; ".join(f"{f} {key} {'nothing' if v is None else v}" for f, key, v in parts)
    elif op.f == "cas":
        text = f"cas {op.value[0]}>{op.value[1]}"
    elif op.f == "read":
        text = f"r {'nothing' if op.output is None else op.output}"
    elif op.f == "write":
        text = f"w {op.value}"
    else:
        text = f"{op.f} {op.output if op.output is not None else op.value}"
    mark = {"ok": "", "info": " ?", "fail": " refused"}[op.type]
    return (text if len(text) <= 28 else f"{text[:27]}…") + mark


def _prepare(history: History, story: Counterexample) -> _Drawing:
    drawing = _Drawing(times=Times(history))
    times = {op.invoke_ns for op in story.ops}
    times |= {op.return_ns for op in story.ops if op.return_ns is not None}
    begin, drawing.end_ns = min(times, default=0), max(times, default=0) + 1
    for op in sorted(story.ops, key=lambda op: (op.invoke_ns, op.index)):
        drawing.lanes.setdefault(op.process, []).append(op)
    for start, end, event in partitions(history):
        if start <= drawing.end_ns and end >= begin:
            # A fault that began long before is drawn from the left edge.
            span = (max(start, begin), min(end, drawing.end_ns))
            times.update(span)
            drawing.faults.append((*span, event.f))
    if story.forbidden is not None:
        times.update(min(instant, drawing.end_ns) for instant in story.forbidden)
    times.add(drawing.end_ns)
    drawing.instants = sorted(times)
    return drawing


def draw_text(history: History, story: Counterexample, width: int = 96) -> str:
    """The lanes for a console."""
    drawing = _prepare(history, story)
    margin = max((len(_name(ops)) for ops in drawing.lanes.values()), default=0)
    margin = max(margin, len("forbidden")) + 1
    step = max((width - margin) // max(len(drawing.instants), 1), 6)

    def column(time_ns: int) -> int:
        return margin + drawing.place(time_ns) * step

    total = margin + step * len(drawing.instants)
    lines: list[str] = []
    for start, end, name in drawing.faults:
        band = _bar(column(start), column(end), name, "▒", "▒", total)
        lines.append("fault".ljust(margin) + band[margin:].rstrip())
    for ops in drawing.lanes.values():
        row = [" "] * total
        row[: len(_name(ops))] = _name(ops)
        for op in ops:
            end = drawing.end_ns if op.return_ns is None else op.return_ns
            left, right = column(op.invoke_ns), column(end)
            edge = "┄" if op.return_ns is None else "─"
            bar = _bar(left, right, label(op), edge, "├" if right > left else "│", total)
            for place in range(left, min(max(right, left) + 1, total)):
                row[place] = bar[place]
            # A label longer than its bar goes on behind it.
            text = bar[right + 1 :].rstrip()
            row[right + 1 : right + 1 + len(text)] = text
        lines.append("".join(row[:total]).rstrip())
    if story.forbidden is not None:
        low, high = (min(instant, drawing.end_ns) for instant in story.forbidden)
        band = _bar(column(low), column(high), "", "×", "×", total)
        lines.append("forbidden".ljust(margin) + band[margin:].rstrip())
    axis = [" "] * (total + 12)
    free = margin
    for instant, text in drawing.axis():
        if column(instant) >= free:
            axis[column(instant) : column(instant) + len(text)] = text
            free = column(instant) + len(text) + 2
    return "\n".join([*lines, "".join(axis).rstrip()])


def _bar(left: int, right: int, text: str, fill: str, edge: str, total: int) -> str:
    row = [" "] * (total + 40)
    row[left : right + 1] = fill * (right - left + 1)
    row[left] = edge
    if right > left:
        row[right] = "┤" if edge == "├" else fill
    inside = right - left - 1
    if text and len(text) + 2 <= inside:
        start = left + 1 + (inside - len(text) - 2) // 2
        row[start : start + len(text) + 2] = f" {text} "
    elif text:
        row[right + 1 : right + 1 + len(text)] = text
    return "".join(row)


def _name(ops: list[Op]) -> str:
    node = next((op.node for op in ops if op.node), None)
    return f"process {ops[0].process}" + (f" at {node}" if node else "")


_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.lane{stroke:#ddd}.op{fill:#cfe3ff;"
    "stroke:#1d5fbf}.read{fill:#e6f5e6;stroke:#2d7d2d}.info{stroke-dasharray:4 3}"
    ".refused{fill:#f0f0f0;stroke:#888}.fault{fill:#f2c14e;opacity:.28}"
    ".forbidden{fill:#d62728;opacity:.16}.small{font-size:10px;fill:#666}"
)


def draw_svg(history: History, story: Counterexample) -> str:
    """The lanes as one self-contained SVG element."""
    drawing = _prepare(history, story)
    left, step, top, height = 130, 96, 34, 44
    width = left + step * len(drawing.instants) + 20
    bottom = top + height * len(drawing.lanes)

    def x(time_ns: int) -> int:
        return left + drawing.place(min(time_ns, drawing.end_ns)) * step

    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {bottom + 40}" '
        f'width="{width}" height="{bottom + 40}"><title>{escape(story.anomaly)}: '
        f"{escape(story.summary)}</title><style>{_STYLE}</style>"
    )
    parts = [head]
    for start, end, name in drawing.faults:
        band = max(x(end) - x(start), 2)
        parts.append(
            f'<rect class="fault" x="{x(start)}" y="4" width="{band}" height="{bottom}"/>'
            f'<text class="small" x="{x(start) + 4}" y="16">{escape(name)}</text>'
        )
    if story.forbidden is not None:
        low, high = (x(instant) for instant in story.forbidden)
        parts.append(
            f'<rect class="forbidden" x="{low}" y="{top - 12}" width="{max(high - low, 2)}" '
            f'height="{bottom - top + 12}"/>'
            f'<text class="small" x="{low + 4}" y="{top - 2}">forbidden</text>'
        )
    for number, ops in enumerate(drawing.lanes.values()):
        y = top + number * height
        parts.append(f'<text x="6" y="{y + 24}">{escape(_name(ops))}</text>')
        parts.append(f'<path class="lane" d="M{left} {y + 20}H{width - 10}"/>')
        for op in ops:
            end = drawing.end_ns if op.return_ns is None else op.return_ns
            kind = {"ok": "", "info": " info", "fail": " refused"}[op.type]
            kind = ("op read" if op.f == "read" else "op") + kind
            bar = max(x(end) - x(op.invoke_ns), 6)
            shape = (
                f'<rect class="{kind}" x="{x(op.invoke_ns)}" y="{y + 8}" width="{bar}" height="24" '
                f'rx="4"/><text x="{x(op.invoke_ns) + 6}" y="{y + 24}">{escape(label(op))}</text>'
            )
            # The report shows the trace of each request under this name.
            trace = op.extra.get("trace_id")
            parts.append(f'<a href="#trace-{escape(str(trace))}">{shape}</a>' if trace else shape)
    axis = [
        f'<text class="small" x="{x(instant)}" y="{bottom + 16}">{text}</text>'
        for instant, text in drawing.axis()
    ]
    return "".join([*parts, *axis, "</svg>"])
