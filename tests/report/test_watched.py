"""What a monitoring saw, in the report: only where there was one, and as text."""

from __future__ import annotations

from pathlib import Path

from labs.harness.lab.watched import Firing, Watched
from labs.harness.report.load import load_run
from labs.harness.report.write import render
from tests.report.runs import HOSTILE, make_run


def test_curves_and_alerts_are_shown_with_their_table(tmp_path: Path) -> None:
    """A picture has its table; a moment of it is one click away. Hostile names stay text."""
    directory = make_run(tmp_path / "run")
    watched = Watched(
        "what <b>it</b> saw",
        {HOSTILE[0]: [(0.1, 0.0), (0.2, 1.0)], "empty": []},
        [Firing(HOSTILE[2], 0.15, 0.2), Firing("Other", 0.1, 0.2), Firing(HOSTILE[2], 0.3, 0.4)],
    )
    watched.save(directory / "odd-store")
    run = load_run(directory)
    page = render(run)

    assert run.variants[0].watched == watched
    assert "What the monitoring saw" in page
    assert 'id="watched-0"' in page
    assert 'href="#watched"' in page
    assert 'href="#t=0.150&amp;v=0"' in page
    assert "&lt;img src=x onerror=" in page
    assert "<img src=x" not in page
    assert "what <b>it</b> saw" not in page


def test_without_a_monitoring_nothing_is_said_of_it(tmp_path: Path) -> None:
    """Most labs have none: no section, no link."""
    page = render(load_run(make_run(tmp_path / "run")))
    assert "What the monitoring saw" not in page
    assert "#watched" not in page
