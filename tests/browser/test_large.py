"""A run of 100 000 operations: its report is built in seconds, says what it omits, and pans."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.page import Page
from tests.report.runs import make_run

pytestmark = pytest.mark.slow

OPERATIONS = 100_000
ROOT = Path(__file__).resolve().parents[2]
# Both budgets are in seconds of a machine that needs so many for a yardstick. That is measured
# beside what is judged: neighbours who share caches and clock make both slower.
PYTHON_YARD_S = 0.20
PAGE_YARD_S = 0.12
BUILD = """
import json, pathlib, sys, time

def yard():
    began = time.process_time()
    for _ in range(8):
        json.loads(json.dumps([{"number": n, "text": str(n)} for n in range(20_000)]))
    return time.process_time() - began

before = yard()
from labs.harness.report.load import load_run
from labs.harness.report.write import write
write(load_run(pathlib.Path(sys.argv[1])))
took = time.process_time() - before
print(json.dumps({"cpu_s": took, "yard_s": (before + yard()) / 2}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(
        tmp_path_factory.mktemp("large") / "run",
        operations=OPERATIONS,
        every_ns=600_000,
        with_frames=200_000,
        values=[f"value {number}" for number in range(50)],
    )


def test_it_is_built_within_five_seconds(large: Path) -> None:
    """At most 5 s from the directory to the page, a fresh process and its imports included.

    Seconds of the processor: others may work on this machine, and this is no test of theirs.
    """
    answer = subprocess.run(
        [sys.executable, "-c", BUILD, str(large)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    told = json.loads(answer.stdout)
    took, slower = told["cpu_s"], max(1.0, told["yard_s"] / PYTHON_YARD_S)
    size = (large / "report.html").stat().st_size
    print(f"{OPERATIONS} operations: {took:.1f} s of CPU, {size / 1e6:.1f} MB; {told}")

    assert took <= 5 * slower
    assert size <= 3_000_000


def test_it_says_what_it_leaves_out_and_pans(page: Page, large: Path) -> None:
    """A sample says that it is one; a step of the time axis is drawn in a blink."""
    page.open(large / "report.html")

    assert "4000 of 100000 operations can be opened" in page.text("#timeline .note")
    assert "messages are here" in page.text("#messages-note")
    assert "lines are here" in page.text("#logs-note")
    # Rates and availability are of all: the table's sum is that of the run.
    asked = page.run(
        "return [...document.querySelectorAll('#availability tbody tr')].reduce((sum, row) =>"
        " sum + Number(row.children[4].textContent), 0)"
    )
    assert asked == OPERATIONS
    before = page.cpu_s()
    page.run(YARD)
    begun = page.cpu_s()
    page.driver.execute_async_script(PAN, STEPS)
    panned = page.cpu_s()
    page.run(YARD)
    step_ms = (panned - begun) / STEPS * 1000
    yard_s = (begun - before + page.cpu_s() - panned) / 2
    print(f"a step of the time axis, all drawn anew: {step_ms:.0f} ms; yard {yard_s:.3f} s")

    assert step_ms <= 100 * max(1.0, yard_s / PAGE_YARD_S)


YARD = """
for (let round = 0; round < 40; round++) {
  Array.from({length: 20000}, (_, at) => (at * 7919) % 20011).sort((a, b) => a - b);
}
"""
STEPS = 40
PAN = """
const [steps, done] = arguments;
const range = Bokeh.documents[0].roots()[0].x_range;
const span = (range.end - range.start) / 4;
range.setv({start: range.start + span, end: range.start + 2 * span});
const step = (left) => {
  if (!left) { done(); return; }
  range.setv({start: range.start + span / 50, end: range.end + span / 50});
  requestAnimationFrame(() => requestAnimationFrame(() => step(left - 1)));
};
step(steps);
"""
