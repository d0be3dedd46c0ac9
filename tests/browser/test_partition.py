"""The report of a real run, as `make lab-partition` leaves it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser.page import Page
from tests.labs.test_cli import ROOT, labs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report() -> Path:
    """Where the run says that its report is."""
    answer = labs("run", "partition", ON="local", SEED="11")
    told = re.search(r"Report: (\S+)", answer.stdout)
    assert told, answer.stdout + answer.stderr
    # The verdict is out before the report is begun.
    assert answer.stdout.index("Verdict") < answer.stdout.index("Report:")
    return ROOT / told[1]


def test_a_usual_run_fits_into_three_megabytes(report: Path) -> None:
    """Everything inside, Bokeh included."""
    assert report.stat().st_size <= 3_000_000


def test_from_a_bad_read_to_its_trace_and_back(page: Page, report: Path) -> None:
    """One click from the operation that gives the control away to what the nodes did for it."""
    page.open(report)
    told = {link.text: link for link in page.all(".story a")}
    assert told, "the control breaks, and its counterexample is told"
    sentence = next(each for each in told if " read " in each)
    process = re.match(r"Process (\d+)", sentence)
    assert process, sentence
    before = page.driver.current_url
    page.run("arguments[0].click()", told[sentence])
    page.until(lambda: page.one("#detail").is_displayed())

    assert " read " in page.text("#detail-title")
    assert f"process {process[1]}sent" in page.text("#detail dl")
    steps = page.text("#detail .waterfall")
    assert "request" in steps
    assert page.all("#detail .scroll tbody tr")
    page.driver.back()
    page.until(lambda: not page.one("#detail").is_displayed())
    assert page.driver.current_url == before


def test_it_asks_nobody_and_complains_of_nothing(page: Page, report: Path) -> None:
    """Two variants, all pictures drawn, no request, no word on the console; kept as PNG."""
    for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
        page.look(width, 900, dark=dark)
        page.open(report)
        page.picture(f"partition-{width}-{'dark' if dark else 'light'}")
        assert page.run("return document.documentElement.scrollWidth") == width

    asked = page.requests()
    assert [url for url in asked if not url.startswith(("file:", "data:", "about:", "blob:"))] == []
    assert page.log() == []
    assert page.run("return document.querySelectorAll('.chart > *').length") == 8
    assert page.all("#messages-picture g.came")
