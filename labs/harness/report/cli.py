"""`report`, `logs`, `traces`, `compare` of `python -m labs`; what they import, they import late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from labs.harness.lab.console import console

app = typer.Typer()

Which = Annotated[str | None, typer.Option("--run", envvar="RUN", help="a run; default: latest")]
Request = Annotated[str, typer.Option(envvar="REQUEST", help="request or trace id, or its start")]
Node = Annotated[str, typer.Option(envvar="NODE", help="a node or client: n1, c2, nemesis, links")]
Text = Annotated[str, typer.Option("--text", envvar="TEXT", help="what the line contains")]
At = Annotated[str, typer.Option("--at", envvar="AT", help="seconds: 4.2, 4.2-4.5, 4.2-, -1")]
Of = Annotated[str, typer.Option("--variant", envvar="VARIANT", help="one variant alone")]
Least = Annotated[str, typer.Option("--level", envvar="LEVEL", help="debug, info, warning, error")]
Number = Annotated[str, typer.Option("--op", envvar="OP", help="an operation's number")]


@contextmanager
def _one_line(out: Console) -> Iterator[None]:
    """What is wrong with a run directory is one line for the user, and exit code 2."""
    from labs.harness.report.data import RunError

    try:
        yield
    except RunError as error:
        out.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(2) from None


@app.command()
def report(
    run: Which = None,
    fresh: Annotated[bool, typer.Option(help="build it anew")] = False,
) -> None:
    """Open the report of a run, or say where it is."""
    out = console()
    with _one_line(out):
        from labs.harness.report import commands

        commands.report(run or None, out, fresh=fresh)


@app.command()
def logs(
    run: Which = None,
    request: Request = "",
    node: Node = "",
    level: Least = "info",
    text: Text = "",
    at: At = "",
    variant: Of = "",
) -> None:
    """Everybody's log lines, merged, of one request, node or stretch of time.

    While containers of `make up` run and nothing is asked for, theirs.
    """
    out = console()
    if not any((run, request, node, text, at, variant)):
        from labs.harness.testbed import free_play

        if free_play.is_up():
            raise typer.Exit(free_play.logs())
    with _one_line(out):
        from labs.harness.report import commands

        filters = commands.wanted(
            request=request, node=node, level=level or "info", text=text, at=at, variant=variant
        )
        commands.logs(run or None, filters, out)


@app.command()
def traces(
    run: Which = None,
    op: Number = "",
    request: Request = "",
    node: Node = "",
    at: At = "",
    variant: Of = "",
) -> None:
    """Operations that failed or took long; one of them as a waterfall with its log lines."""
    out = console()
    with _one_line(out):
        from labs.harness.report import commands

        filters = commands.wanted(
            request=request, node=node, level="debug", text="", at=at, variant=variant
        )
        commands.traces(run or None, filters, op, out)


@app.command()
def compare(
    a: Annotated[str, typer.Option("--a", envvar="A", help="a run")] = "",
    b: Annotated[str, typer.Option("--b", envvar="B", help="another; default: latest")] = "",
) -> None:
    """Two runs side by side."""
    out = console()
    with _one_line(out):
        from labs.harness.report import commands

        commands.compare(a, b, out)
