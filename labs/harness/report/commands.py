"""What `make report`, `make logs`, `make traces` and `make compare` do with their options."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from rich.console import Console

from labs.harness.lab.directory import near
from labs.harness.report import console
from labs.harness.report.data import LEVELS, RunError
from labs.harness.report.load import find, load_run


def report(name: str | None, out: Console, *, fresh: bool = False) -> Path:
    """Open the report, or say where it is; build it when it is not there. Raises RunError."""
    directory = find(name)
    path = directory / "report.html"
    if fresh or not path.exists():
        from labs.harness.report.write import write

        path = write(load_run(directory))
    opened = _has_display() and webbrowser.open(path.as_uri())
    out.print(f"{'opened' if opened else 'the report is'} {near(path)}", markup=False)
    if not opened:
        out.print(f"in a browser: {path.as_uri()}", markup=False, style="dim", soft_wrap=True)
    return path


def _has_display() -> bool:
    """A browser on the screen of somebody who looks at it: no text browser that takes the console
    over, none on a server of CI."""
    if os.environ.get("CI"):
        return False
    graphical = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or bool(graphical)


def wanted(
    *, request: str, node: str, level: str, text: str, at: str, variant: str
) -> console.Wanted:
    """Filters from the command line. Raises RunError."""
    if level not in LEVELS:
        raise RunError(f"LEVEL={level} is not known; one of {', '.join(LEVELS)}")
    since_s, until_s = console.window(at)
    return console.Wanted(request, node, level, text, since_s, until_s, variant)


def logs(name: str | None, filters: console.Wanted, out: Console) -> None:
    """Raises RunError."""
    console.logs(load_run(find(name), whole=True), filters, out)


def traces(name: str | None, filters: console.Wanted, op: str, out: Console) -> None:
    """Raises RunError."""
    if op and not op.removeprefix("#").isdecimal():
        raise RunError(f"OP={op} is not an operation's number: write OP=17")
    number = int(op.removeprefix("#")) if op else None
    console.traces(load_run(find(name), whole=True), filters, number, out)


def compare(one: str, other: str, out: Console) -> None:
    """Raises RunError."""
    from labs.harness.report.compare import compare as lay_side_by_side

    if not one:
        raise RunError("which runs? make compare A=<run> B=<run> (B is the latest by default)")
    lay_side_by_side(load_run(find(one)), load_run(find(other or None)), out)
