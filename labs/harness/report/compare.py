"""Two runs side by side: verdicts, claims, figures, availability."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labs.harness.report import measures
from labs.harness.report.data import Run, VariantRun, shown


def compare(one: Run, other: Run, out: Console) -> None:
    """Print the table. Runs of different labs share what has the same name."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", style="dim")
    for run in (one, other):
        table.add_column(Text(run.directory.name))
    rows = [("lab", [run.verdict.lab for run in (one, other)])]
    rows += [("verdict", [run.verdict.verdict for run in (one, other)])]
    rows += [("seed", [str(run.verdict.seed) for run in (one, other)])]
    rows += [("elapsed", [f"{run.verdict.elapsed_s:.1f} s" for run in (one, other)])]
    rows += [("faults", [str(len(run.verdict.faults)) for run in (one, other)])]
    for title, cells in rows:
        _row(table, title, cells)
    names = list(dict.fromkeys(each.name for run in (one, other) for each in run.variants))
    for name in names:
        pair = [next((each for each in run.variants if each.name == name), None)
                for run in (one, other)]  # fmt: skip
        table.add_row()
        table.add_row(Text(shown(name), "bold cyan"))
        _variant(table, pair)
    out.print(table)


def _variant(table: Table, pair: list[VariantRun | None]) -> None:
    _row(table, "outcome", [each.outcome if each else "–" for each in pair])
    texts = [claim.text for each in pair if each for claim in each.result.claims]
    for text in dict.fromkeys(texts):
        _row(table, text, [_claim(each, text) for each in pair])
    keys = [key for each in pair if each for key in each.result.figures]
    for key in dict.fromkeys(keys):
        _row(table, key, [_figure(each.result.figures.get(key)) if each else "–" for each in pair])
    _row(table, "operations ok / fail / info", [_counts(each) for each in pair])
    _row(table, "answered, time p50 / p99", [_answers(each) for each in pair])


def _row(table: Table, title: str, cells: list[str]) -> None:
    style = "" if len(set(cells)) == 1 else "bold"
    table.add_row(Text(shown(title, 500)), *(Text(shown(cell, 500), style) for cell in cells))


def _claim(variant: VariantRun | None, text: str) -> str:
    claims = variant.result.claims if variant else []
    for claim in claims:
        if claim.text == text:
            return {True: "✓ ", False: "✗ ", None: "? "}[claim.holds] + claim.evidence
    return "–"


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _counts(variant: VariantRun | None) -> str:
    if variant is None:
        return "–"
    types: list[str] = [op.type for op in variant.history.ops]
    return " / ".join(str(types.count(kind)) for kind in measures.TYPES)


def _answers(variant: VariantRun | None) -> str:
    if variant is None or not variant.history.ops:
        return "–"
    took = [(op.return_ns - op.invoke_ns) / 1e6 for op in variant.history.ops
            if measures.answered(op) and op.return_ns is not None]  # fmt: skip
    share = len(took) / len(variant.history.ops)
    ranks = [measures.of_rank(took, rank) for rank in (50, 99)]
    return f"{share:.1%}, {ranks[0]:.1f} / {ranks[1]:.1f} ms"
