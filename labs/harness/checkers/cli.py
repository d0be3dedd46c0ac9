"""`python -m labs check FILE --model cas-register`: judge anybody's history.

Exit codes: 0 the history is valid, 1 it is not, 2 nobody can tell (unknown, or the file cannot be
judged: the message names file and line).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from labs.harness.checkers import (
    availability,
    causal,
    elements,
    linearizable,
    locks,
    lost_writes,
    models,
    sequential,
    sessions,
    totals,
    txn,
)
from labs.harness.checkers.lanes import draw_svg, draw_text
from labs.harness.checkers.result import Result, Valid
from labs.harness.checkers.shapes import require_shape
from labs.harness.history import History, HistoryError, load, load_jepsen, load_porcupine


class Format(str, Enum):  # noqa: UP042 - typer shows the values of a plain str enumeration
    """How a history is written down."""

    edn = "edn"
    jsonl = "jsonl"
    porcupine = "porcupine"


CHECKS: dict[str, Callable[[History], Result]] = {
    "sequential": sequential.check_sequential,
    "causal": causal.check_causal,
    "causal-convergent": lambda history: causal.check_causal(history, "CCv"),
    "read-your-writes": lambda history: sessions.check_session(history, "ryw"),
    "monotonic-reads": lambda history: sessions.check_session(history, "mr"),
    "monotonic-writes": lambda history: sessions.check_session(history, "mw"),
    "writes-follow-reads": lambda history: sessions.check_session(history, "wfr"),
    "convergence": sessions.check_convergence,
    "lost-writes": lost_writes.check_lost_writes,
    "set-full": elements.check_set,
    "total-queue": elements.check_queue,
    "unique-ids": elements.check_unique_ids,
    "counter-bounds": totals.check_counter,
    "bank": totals.check_bank,
    "long-fork": totals.check_long_fork,
    "lock-safety": locks.check_lock,
    "availability": availability.check_availability,
}
"""What `--model` may name beside the models of linearizability and the two of transactions."""

_VERDICTS: dict[Valid, tuple[str, int]] = {
    True: ("valid", 0),
    False: ("NOT valid", 1),
    "unknown": ("unknown", 2),
}
TRANSACTIONS = ("list-append", "rw-register")
NAMES = (*models.MODELS, *TRANSACTIONS, *CHECKS)


def read(file: Path, format: Format | None, independent: bool) -> History:  # noqa: A002
    """Load a history; without a format its name decides.

    Raises:
        HistoryError: the file is malformed, or holds no operation.
        OSError: it cannot be read.
    """
    by_name = {".edn": Format.edn, ".json": Format.edn, ".jsonl": Format.jsonl}
    chosen = format or by_name.get(file.suffix, Format.porcupine)
    if chosen is Format.edn:
        history = load_jepsen(file, independent=independent)
    else:
        history = load(file) if chosen is Format.jsonl else load_porcupine(file)
    if not history.ops:
        raise HistoryError(f"{file}:1: no operation to judge")
    return history


def judge(
    history: History, model: str, *, consistency: str = "serializable", timeout_s: float = 60.0
) -> Result:
    """Run the check that `model` names.

    Raises:
        ValueError: there is none, or it does not fit the history.
    """
    if model in models.MODELS:
        return linearizable.check_linearizable(history, model, timeout_s=timeout_s)
    if model in TRANSACTIONS:
        return txn.check_txn(history, model, consistency=consistency)
    if model not in CHECKS:
        raise ValueError(f"no model {model!r}; there are {', '.join(NAMES)}")
    return CHECKS[model](history)


def check(
    file: Annotated[Path, typer.Argument(help="The history to judge.")],
    model: Annotated[
        str, typer.Option(help=f"What it shall satisfy: {', '.join(NAMES)}.")
    ] = "register",
    format: Annotated[  # noqa: A002 - the option's name
        Format | None, typer.Option(help="Default: by the name of the file.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell and draw what is wrong.")
    ] = False,
    consistency: Annotated[
        str, typer.Option(help=f"For transactions: {', '.join(txn.MODELS)}.")
    ] = "strict-serializable",
    independent: Annotated[
        bool, typer.Option("--independent", help="EDN: every value is a tuple of key and value.")
    ] = False,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Then: unknown.")] = 60.0,
    svg: Annotated[Path | None, typer.Option(help="Write the drawing to this file.")] = None,
) -> None:
    """Judge a history: exit code 0 valid, 1 not valid, 2 unknown or not readable."""
    try:
        history = read(file, format, independent)
        require_shape(history, model)
        result = judge(history, model, consistency=consistency, timeout_s=timeout_s)
    except HistoryError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"{file}: {error.strerror or error}", err=True)
        raise typer.Exit(2) from None
    except ValueError as error:
        typer.echo(f"{file}: {error}", err=True)
        raise typer.Exit(2) from None
    words, code = _VERDICTS[result.valid]
    typer.echo(f"{file}: {words} ({model}; {len(history.ops)} operations; {result.algorithm})")
    story = result.counterexample
    if explain and story is None:
        typer.echo("\n".join(_figures(result)), nl=bool(_figures(result)))
    if story is not None:
        typer.echo(f"{story.anomaly}: {story.summary}")
        if explain:
            typer.echo("\n".join(story.sentences))
            if story.ops:
                typer.echo(draw_text(history, story))
        if svg is not None and story.ops:
            svg.write_text(draw_svg(history, story), encoding="utf-8")
    raise typer.Exit(code)


def _figures(result: Result) -> list[str]:
    """What a verdict without a counterexample rests on: why it is unknown, or the shares."""
    lines = []
    if undecided := result.stats.get("undecided keys"):
        names = ", ".join(str(key) for key in undecided[:6])
        lines.append(
            f"gave up on {len(undecided)} keys ({names}): more time may help (--timeout-s)"
        )
    if without := result.stats.get("keys_without_final_read"):
        lines.append(f"{len(without)} written keys have no read marked final")
    for window in result.stats.get("windows", ()):
        shares = (
            f"{side} answered {window.answered[side]} of {asked}"
            for side, asked in sorted(window.asked.items())
        )
        lines.append(f"{window.name}: {', '.join(shares)}")
    for recovery in result.stats.get("recoveries", ()):
        for side, took in recovery.after_ns.items():
            told = "never" if took is None else f"{took / 1e9:.3f} s"
            lines.append(f"after {recovery.fault}, {side} was answered again: {told}")
    return lines


def main(argv: list[str]) -> int:
    """Entry for `python -m labs check …` and for tests: the exit code."""
    app = typer.Typer(add_completion=False)
    app.command()(check)
    try:
        code = app(argv, prog_name="python -m labs check", standalone_mode=False)
    except typer.Exit as ended:
        return int(ended.exit_code)
    except Exception as error:  # click's own: a wrong option
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return 2
    return int(code or 0)
