"""Traces of several services, in the report's data and on the console."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from labs.harness.report.console import Wanted, traces
from labs.harness.report.data import Run
from labs.harness.report.load import load_run
from labs.harness.report.payload import payload
from labs.harness.report.trace import waited_for
from tests.report.calls import NUMBER, add_calls
from tests.report.runs import make_run

WAITED = "2 of 2 ms in the link gateway→n2 (call PUT /orders/<b>17</b>)"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return load_run(add_calls(tmp_path / "run"), whole=True)


def test_an_operation_tells_what_it_waited_for(run: Run) -> None:
    """Each operation's row ends with it; None where no service called another."""
    ops = payload(run)["variants"][0]["ops"]

    assert [op[-1] for op in ops] == [WAITED if at == NUMBER else None for at in range(len(ops))]


def test_the_console_shows_calls_with_their_peers(run: Run) -> None:
    """The waterfall, then what was mostly waited for, then the lines."""
    out = Console(file=io.StringIO(), width=160, highlight=False)
    traces(run, Wanted(), NUMBER, out)
    text = out.file.getvalue()  # type: ignore[attr-defined]

    assert "    gateway call" in text
    assert f"mostly waited for: {WAITED}" in text
    assert "to n2: PUT /orders/<b>17</b> → 200 ok" in text


def test_what_sampling_did_not_draw_is_said_to_be_so(tmp_path: Path) -> None:
    """No node tells of it, and that is no sign of a dead node."""
    directory = make_run(tmp_path / "run")
    history = directory / "odd-store" / "history.jsonl"
    lines = history.read_text().splitlines()
    at = next(at for at, line in enumerate(lines) if '"r-0"' in line)
    lines[at] = lines[at].replace('"request_id"', '"sampled":false,"request_id"')
    history.write_text("\n".join(lines) + "\n")
    for path in directory.glob("*/*.events.jsonl"):
        path.write_bytes(b"")
    out = Console(file=io.StringIO(), width=160, highlight=False)
    traces(load_run(directory, whole=True), Wanted(), 0, out)

    assert "sampling did not draw it" in out.file.getvalue()  # type: ignore[attr-defined]


def test_one_services_own_time_is_no_news(run: Run) -> None:
    """Without calls there is nothing to point at."""
    assert waited_for([]) is None
    assert waited_for([line for line in run.variants[0].lines if line.request_id == "r-0"]) is None
