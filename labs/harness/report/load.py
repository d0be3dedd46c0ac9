"""From a run directory to a `Run`: the one place that knows the files."""

from __future__ import annotations

from pathlib import Path

import msgspec

from labs.harness.checkers.result import collector_off
from labs.harness.history import History, HistoryError, load
from labs.harness.lab import watched
from labs.harness.lab.directory import ROOT, slug
from labs.harness.lab.verdict import FaultRecord, VariantResult, Verdict
from labs.harness.report import budget, events, messages
from labs.harness.report.data import (
    Level,
    Line,
    Message,
    Run,
    RunError,
    VariantRun,
    asked,
    did,
    ended_ns,
    shown,
)

RUNS = ROOT / "runs"
LATEST = "latest"


def find(name: str | None, root: Path = RUNS) -> Path:
    """The run directory that a user means: a path, a name (or its beginning) in `runs/`, or the
    latest. Raises RunError."""
    wanted = name or LATEST
    for candidate in (Path(wanted), root / wanted):
        if (candidate / "verdict.json").exists():
            return candidate.resolve()
        if candidate.is_dir() and candidate.resolve() != root.resolve():
            raise RunError(f"{wanted}: no verdict.json there; not a run, or one that broke off")
    known = sorted(path.parent.name for path in root.glob("*/verdict.json"))
    known = [each for each in known if each != LATEST]
    begins = [each for each in known if each.startswith(wanted)]
    if len(begins) == 1:
        return (root / begins[0]).resolve()
    if name is None:
        raise RunError("there is no run yet; type: make lab-partition")
    last = f"the last ones: {', '.join(known[-3:])}" if known else "there is none yet"
    raise RunError(f"no run {shown(wanted)!r} here; {last}")


def load_run(directory: Path, *, whole: bool = False) -> Run:
    """Read a run. `whole`: keep every line and message, however many (for the console).

    Raises RunError: what is needed is missing or damaged. Damaged lines of logs are only counted.
    """
    with collector_off():
        return _load(directory, whole)


def _load(directory: Path, whole: bool) -> Run:
    verdict = _verdict(directory)
    run = Run(directory, verdict, [])
    first = 0
    for plain in verdict.variants:
        try:
            result = msgspec.convert(plain, VariantResult)
        except msgspec.ValidationError as error:
            raise RunError(f"{directory / 'verdict.json'}: damaged: {error}") from None
        faults = [fault for fault in verdict.faults if fault.variant == result.name]
        own = directory / slug(result.name)
        history = _history(own)
        outcome = str(plain.get("outcome", "unknown"))
        variant = VariantRun(result, outcome, own, history, first, faults)
        _fill(run, variant, whole)
        variant.watched = _watched(own)
        run.variants.append(variant)
        first += len(history.ops)
    return run


def _verdict(directory: Path) -> Verdict:
    path = directory / "verdict.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Verdict)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged: {error}") from None


def _history(directory: Path) -> History:
    path = directory / "history.jsonl"
    try:
        return load(path)
    except HistoryError as error:
        raise RunError(f"damaged: {error}") from None
    except OSError as error:
        # A variant whose cluster never started has no directory; its trouble is the whole story.
        if not directory.exists():
            return History([], source=str(path))
        raise RunError(f"{path}: {error.strerror or error}") from None


def _watched(directory: Path) -> watched.Watched | None:
    try:
        return watched.read(directory)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{directory / watched.NAME}: damaged: {error}") from None


def _fill(run: Run, variant: VariantRun, whole: bool) -> None:
    """Join everything that the variant left behind."""
    ops = variant.history.ops
    position = {op.index: at for at, op in enumerate(ops)}
    stories = [claim.shown.ops for claim in variant.result.claims if claim.shown]
    wanted = [position[index] for found in stories for index in found if index in position]
    variant.opened = list(range(len(ops))) if whole else budget.choose_ops(ops, wanted)
    if len(variant.opened) < len(ops):
        variant.omitted["operations"] = (
            f"{len(variant.opened)} of {len(ops)} operations can be opened: those of "
            f"counterexamples, those that failed, and an even sample of the rest"
        )
    traces = {ops[at].extra.get("trace_id") for at in variant.opened}
    foreign = len(variant.opened) == len(ops)
    start_ns = variant.result.start_ns
    frames: list[events.Wide] = []
    steps: list[tuple[int, str, str, bytes]] = []
    lines: list[Line] = []
    for path in sorted(variant.directory.glob("*.events.jsonl")):
        for found in events.read(path):
            if found is None:
                run.unreadable += 1
                continue
            wide, raw = found
            if wide.kind == "frames":
                frames.append(wide)
            elif wide.kind != "span" or foreign or wide.trace_id in traces:
                lines.append(events.line_of(wide, raw, start_ns))
                if wide.kind != "span":
                    steps.append((lines[-1].at_us, wide.node, wide.event, raw))
    for path in sorted(variant.directory.glob("*.log")):
        ours = path.stem in (*variant.result.nodes, "links")
        lines += events.process_lines(path, path.stem, start_ns, ours=ours)
    lines += _of_clients(variant)
    lines += _of_nemesis(variant)
    lines.sort(key=lambda line: line.at_us)
    _close(variant, lines, steps)
    _keep(variant, lines, messages.join(frames, start_ns), wanted, whole)


def _close(
    variant: VariantRun, lines: list[Line], steps: list[tuple[int, str, str, bytes]]
) -> None:
    ends = [ended_ns(op) or op.invoke_ns for op in variant.history.ops]
    healed = [fault.recovered_at or fault.planned_at for fault in variant.faults]
    last = max([end // 1000 for end in ends] + [int(at * 1e6) for at in healed], default=0)
    variant.end_us = last or max((line.at_us for line in lines), default=0)
    killed = [
        (int(fault.injected_at * 1e6), node)
        for fault in variant.faults
        if fault.name in ("kill", "wipe") and fault.injected_at is not None
        for node in fault.target.split()
    ]
    variant.stays = messages.stays(steps, killed, variant.end_us)


def _keep(
    variant: VariantRun,
    lines: list[Line],
    frames: list[Message],
    wanted: list[int],
    whole: bool,
) -> None:
    variant.lines, variant.messages = lines, frames
    if whole:
        return
    ops = variant.history.ops
    moments = [int(at * 1e6) for fault in variant.faults for at in _edges(fault)]
    moments += [ops[at].invoke_ns // 1000 for at in wanted]
    variant.lines = budget.choose_lines(lines)
    variant.messages = budget.choose_messages(frames, moments)
    if len(variant.lines) < len(lines):
        kept = f"{len(variant.lines)} of {len(lines)} lines are here; `make logs` shows all"
        variant.omitted["lines"] = kept
    if len(variant.messages) < len(frames):
        variant.omitted["messages"] = (
            f"{len(variant.messages)} of {len(frames)} messages are here: all that were sent "
            f"within {budget.NEAR_US // 1000} ms of the faults' edges and of counterexamples"
        )


def _edges(fault: FaultRecord) -> list[float]:
    return [at for at in (fault.injected_at, fault.healed_at) if at is not None]


def _of_clients(variant: VariantRun) -> list[Line]:
    """Each operation as two lines of its client: sent, and how it ended. The second is its span."""
    found = []
    for at in variant.opened:
        op = variant.history.ops[at]
        place, name = op.client or "client", f"#{variant.number(at)}"
        trace, request = op.extra.get("trace_id"), op.extra.get("request_id")
        sent_us, ended = op.invoke_ns // 1000, ended_ns(op)
        what = did(op)
        found.append(Line(sent_us, place, "info", "invoke", f"{name} {asked(op)}", trace, request))
        if ended is None:
            continue
        error = f": {shown(op.error)}" if op.error else ""
        found.append(
            Line(
                ended // 1000,
                place,
                "info" if op.type == "ok" else "warning",
                op.type,
                f"{name} {what}{error}",
                trace,
                request,
                op.extra.get("span_id"),
                None,
                ended // 1000 - sent_us,
                op.type != "ok",
            )
        )
    return found


def _of_nemesis(variant: VariantRun) -> list[Line]:
    found = []
    for event in variant.history.nemesis:
        value = event.value if isinstance(event.value, dict) else {}
        text = f"{shown(event.f)} {shown(value.get('target', ''))}"
        if how := value.get("how"):
            text += f": {shown(how, 1000)}"
        phase = str(value.get("phase", event.type))
        alarming = phase in ("injected", "failed", "unfelt", "unrecovered")
        level: Level = "warning" if alarming else "info"
        found.append(Line(event.time_ns // 1000, "nemesis", level, shown(phase), text))
    return found
