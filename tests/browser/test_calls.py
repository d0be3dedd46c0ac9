"""An operation of several services, as the report's reader meets it."""

from __future__ import annotations

from pathlib import Path

from labs.harness.report.load import load_run
from labs.harness.report.write import write
from tests.browser.page import Page
from tests.report.calls import NUMBER, add_calls


def test_the_waterfall_shows_who_called_whom(page: Page, tmp_path: Path) -> None:
    """Every service of the trace has its row, and the reader is told where the time went."""
    page.open(write(load_run(add_calls(tmp_path / "run"))), f"#op={NUMBER}")
    rows = [row.text.split("\n")[0] for row in page.all("#detail .waterfall tbody tr")]

    assert [row.split()[0] for row in rows] == ["c1", "gateway", "gateway", "n2", "n1", "n2"]
    assert "gateway call to n2: PUT /orders/<b>17</b>" in rows[2]
    assert "in the link gateway→n2" in page.text("#detail dl")
    assert page.all("#detail .bar i.call")
    assert page.log() == []
