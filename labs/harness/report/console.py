"""Logs and traces on the console: the same lines and spans as in the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from labs.harness.report.data import LEVELS, Line, Run, RunError, VariantRun, did, ended_ns, shown
from labs.harness.report.trace import Span, tree, waited_for

STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red"}
BAR = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: by request or trace id (their beginning), node, level, text, time in seconds."""

    request: str = ""
    node: str = ""
    level: str = "info"
    text: str = ""
    since_s: float | None = None
    until_s: float | None = None
    variant: str = ""

    def variants(self, run: Run) -> list[VariantRun]:
        """Those asked for. Raises RunError when there is none of that name."""
        found = [each for each in run.variants if self.variant in ("", each.name)]
        if not found:
            names = ", ".join(each.name for each in run.variants)
            raise RunError(f"no variant {self.variant!r} in this run; there are: {names}")
        return found

    def __contains__(self, line: object) -> bool:
        assert isinstance(line, Line)
        ids = (line.request_id or "", line.trace_id or "")
        return (
            LEVELS.index(line.level) >= LEVELS.index(self.level)
            and self.node in ("", line.node)
            and (not self.request or any(each.startswith(self.request) for each in ids))
            and self.text.lower() in f"{line.event} {line.text}".lower()
            and (self.since_s is None or line.at_us >= self.since_s * 1e6)
            and (self.until_s is None or line.at_us <= self.until_s * 1e6)
        )


def window(text: str) -> tuple[float | None, float | None]:
    """`4.2-4.5` or `4.2` (50 ms around it), in seconds. Raises RunError."""
    if not text:
        return None, None
    try:
        begin, dash, end = text.partition("-")
        if not dash:
            return float(begin) - 0.05, float(begin) + 0.05
        return float(begin) if begin else None, float(end) if end else None
    except ValueError:
        raise RunError(f"AT={text} is not a time: write AT=4.2 or AT=4.2-4.5 (seconds)") from None


def logs(run: Run, wanted: Wanted, out: Console) -> int:
    """Print the lines; returns how many."""
    total = 0
    for variant in wanted.variants(run):
        lines = [line for line in variant.lines if line in wanted]
        if not lines:
            continue
        out.print(Text(f"{variant.name}: {len(lines)} of {len(variant.lines)} lines", "bold cyan"))
        for line in lines:
            out.print(_line(line), soft_wrap=True)
        total += len(lines)
    if not total:
        out.print("no line is like that; try LEVEL=debug, or fewer filters")
    return total


def _line(line: Line) -> Text:
    style = STYLES[line.level]
    text = Text()
    text.append(f"{line.at_us / 1e6:9.4f} ", "dim")
    text.append(f"{line.node:<7} ", "bold")
    text.append(f"{line.level:<7} {line.event:<12} ", style)
    text.append(line.text, style)
    if line.duration_us is not None:
        text.append(f"  {_took(line.duration_us)}", "dim")
    if line.request_id:
        text.append(f"  {line.request_id}", "dim")
    return text


def traces(run: Run, wanted: Wanted, number: int | None, out: Console, most: int = 30) -> int:
    """Print the waterfall of an operation (by its number, or its request or trace id); without
    any, the list of what failed and what took longest. Returns how many operations."""
    found = list(_operations(run, wanted, number))
    if not found:
        raise RunError("no operation is like that; `make traces` lists some, by number")
    if number is None and not wanted.request:
        return _list(found, out, most)
    for variant, at in found[:most]:
        waterfall(variant, at, out)
    return len(found)


def _operations(run: Run, wanted: Wanted, number: int | None) -> Iterator[tuple[VariantRun, int]]:
    for variant in wanted.variants(run):
        for at, op in enumerate(variant.history.ops):
            ids = [str(op.extra.get(name, "")) for name in ("request_id", "trace_id")]
            at_s = op.invoke_ns / 1e9
            if number is not None and variant.number(at) != number:
                continue
            if wanted.request and not any(each.startswith(wanted.request) for each in ids):
                continue
            if wanted.node not in ("", op.node, op.client):
                continue
            if (wanted.since_s is not None and at_s < wanted.since_s) or (
                wanted.until_s is not None and at_s > wanted.until_s
            ):
                continue
            yield variant, at


def _list(found: Sequence[tuple[VariantRun, int]], out: Console, most: int) -> int:
    def rank(item: tuple[VariantRun, int]) -> tuple[bool, int]:
        op = item[0].history.ops[item[1]]
        return op.type == "ok", -((ended_ns(op) or 1 << 62) - op.invoke_ns)

    out.print(f"{len(found)} operations; first what did not succeed, then what took longest:")
    for variant, at in sorted(found, key=rank)[:most]:
        op = variant.history.ops[at]
        end = ended_ns(op)
        took = "never ended" if end is None else _took((end - op.invoke_ns) // 1000)
        text = Text(f"#{variant.number(at):<6} {op.invoke_ns / 1e9:8.3f} s  {op.client or '':<4} ")
        text.append(f"{op.type:<5}", "green" if op.type == "ok" else "red")
        text.append(f"{took:>10}  {did(op)}  ")
        text.append(shown(op.error) if op.error else "", "dim")
        out.print(text, soft_wrap=True)
    out.print("one of them: make traces OP=<number>", style="dim")
    return len(found)


def waterfall(variant: VariantRun, at: int, out: Console) -> None:
    """One operation: its spans as bars, then its log lines."""
    op = variant.history.ops[at]
    trace_id = op.extra.get("trace_id")
    lines = [line for line in variant.lines if trace_id and line.trace_id == trace_id]
    error = f": {shown(op.error)}" if op.error else ""
    title = f"#{variant.number(at)} {did(op)} ({variant.name}, {op.type}{error})"
    out.print(Text(title, "bold cyan"), soft_wrap=True)
    out.print(Text(f"request {op.extra.get('request_id')} · trace {trace_id}", "dim"))
    spans = tree(lines)
    if spans:
        _bars(spans, out)
    if found := waited_for(lines):
        out.print(Text(f"mostly waited for: {found}", "bold"), soft_wrap=True)
    if not any(line.event == "request" for line in lines):
        undrawn = op.extra.get("sampled") is False
        why = "sampling did not draw it" if undrawn else "it never arrived, or its node was killed"
        out.print(f"no node tells of it: {why}", style="yellow")
    for line in lines:
        out.print(_line(line), soft_wrap=True)
    out.print()


def _bars(spans: Sequence[Span], out: Console) -> None:
    begin = min(span.begin_us for span in spans)
    length = max(max(span.line.at_us for span in spans) - begin, 1)
    names = [f"{'  ' * span.depth}{span.line.node} {span.line.event}" for span in spans]
    wide = max(len(name) for name in names)
    for name, span in zip(names, spans, strict=True):
        left = min(int((span.begin_us - begin) / length * BAR), BAR - 1)
        right = max(left + 1, round((span.line.at_us - begin) / length * BAR))
        text = Text(f"{name:<{wide}} ")
        text.append("·" * left, "dim")
        text.append("█" * (right - left), "red" if span.line.bad else "green")
        text.append("·" * (BAR - right), "dim")
        text.append(f" {_took(span.line.duration_us or 0)}")
        out.print(text, soft_wrap=True)


def _took(duration_us: int) -> str:
    if duration_us >= 1_000_000:
        return f"{duration_us / 1e6:.2f} s"
    return f"{duration_us / 1000:.1f} ms" if duration_us >= 1000 else f"{duration_us} µs"
