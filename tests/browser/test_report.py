"""The report in headless Chromium: what a reader clicks, types and sees."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.page import Page

FAILED = 3  # the first operation of the synthetic run that failed
CHARTS = 4  # per variant


def test_it_opens_from_disk_without_asking_anybody(page: Page, plain: Path) -> None:
    """No request leaves the page, and nothing is said on the console."""
    page.open(plain)

    outside = [
        url for url in page.requests() if not url.startswith(("file:", "data:", "about:", "blob:"))
    ]
    assert outside == []
    assert page.log() == []
    assert page.run("return document.querySelectorAll('.chart > *').length") == CHARTS
    assert page.run("return performance.getEntriesByType('resource').length") == 0


def test_an_attempt_to_reach_out_is_refused(page: Page, plain: Path) -> None:
    """The policy, not our good behaviour, is what keeps it closed."""
    page.open(plain)
    script = """const done = arguments[0];
        addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective));
        fetch('http://127.0.0.1:9/').catch(() => {});"""

    assert page.driver.execute_async_script(script) == "connect-src"


def test_a_failed_operation_shows_its_trace_and_its_lines_and_back(page: Page, plain: Path) -> None:
    """One click goes from a bad operation to its trace and its log lines; Back goes back."""
    page.open(plain)
    page.run("document.querySelector('#operations-type').value = 'bad'")
    page.run("document.querySelector('#operations-form').dispatchEvent(new Event('input'))")
    page.click(f"#operations-table tr[data-op='{FAILED}'] a")
    page.until(lambda: page.one("#detail").is_displayed())

    assert page.text("#detail-title").startswith(f"#{FAILED} read key one fail")
    bars = page.all("#detail .waterfall tbody tr")
    assert [bar.text.split()[:2] for bar in bars] == [
        ["c2", "fail"],
        ["n1", "request"],
        ["n2", "replicate"],
    ]
    assert len(page.all("#detail .scroll tbody tr")) == 4
    assert f"op={FAILED}" in page.driver.current_url
    page.driver.back()
    page.until(lambda: not page.one("#detail").is_displayed())


def test_from_the_detail_to_the_merged_logs(page: Page, plain: Path) -> None:
    """Its lines among everybody's: filtered by its request id."""
    page.open(plain, f"#op={FAILED}")
    page.click("#detail [data-go=logs]")

    assert page.run("return document.querySelector('#logs-id').value") == f"r-{FAILED}"
    assert "4 of " in page.text("#logs-note")
    page.click("#logs-table tbody tr:nth-child(2) td a[href*='op=']")
    assert page.one("#detail").is_displayed()


def test_a_link_leads_to_a_moment_and_an_operation(page: Page, plain: Path) -> None:
    """`#t=0.2&op=17`: that operation, that moment in every picture."""
    page.open(plain, "#t=0.2&op=17")

    assert page.text("#detail-title").startswith("#17 ")
    assert page.run("return document.querySelector('#moment').value") == "0.200"
    moments = page.run(
        "return Bokeh.documents.flatMap((each) => each.roots()).flatMap((each) => each.center)"
        ".filter((each) => each.name === 'moment').map((each) => each.location)"
    )
    assert moments == [0.2] * CHARTS


def test_an_unknown_operation_is_told(page: Page, plain: Path) -> None:
    """A link into what is not here says so, and shows the rest."""
    page.open(plain, "#op=99999")

    assert "operation #99999 is not in this report" in page.text("#trouble")
    assert not page.one("#detail").is_displayed()


@pytest.mark.parametrize(
    ("field", "value", "least"),
    [
        ("#logs-node", "n2", 40),
        ("#logs-level", "3", 1),
        ("#logs-id", "r-5", 4),
        ("#logs-id", f"{6:032x}", 4),
        ("#logs-text", "become_leader", 1),
    ],
)
def test_log_filters(page: Page, plain: Path, field: str, value: str, least: int) -> None:
    """By node, level, request id, trace id and text: fewer lines, and only such lines."""
    page.open(plain)
    before = int(page.text("#logs-note").split()[0])
    script = """const field = document.querySelector(arguments[0]);
        field.value = arguments[1];
        field.dispatchEvent(new Event('input', {bubbles: true}));"""
    page.run(script, field, value)
    rows = page.all("#logs-table tbody tr")

    assert least <= int(page.text("#logs-note").split()[0]) < before
    if field == "#logs-node":
        assert {row.find_element("css selector", "th").text for row in rows} == {value}
    elif field == "#logs-level":
        assert {row.find_element("css selector", ".level").text for row in rows} == {"error"}
    elif field == "#logs-id":
        assert {row.find_elements("css selector", "td")[-1].text for row in rows} == {"r-5"}


def test_near_the_moment(page: Page, plain: Path) -> None:
    """The log lines around a moment follow the moment."""
    page.open(plain, "#t=0.1")
    page.run("document.querySelector('#logs-near').value = '10'")
    page.run("document.querySelector('#logs-form').dispatchEvent(new Event('input'))")
    first = page.text("#logs-table tbody tr td")
    page.run("location.hash = '#t=0.3'")

    page.until(lambda: page.text("#logs-table tbody tr td") != first)
    assert 0.29 <= float(page.text("#logs-table tbody tr td")) <= 0.31


def test_operations_are_searched(page: Page, plain: Path) -> None:
    """By key, value, client, outcome."""
    page.open(plain)
    page.type("#operations-text", "key two")

    assert all("key two" in row.text for row in page.all("#operations-table tbody tr"))
    assert page.text("#operations-note").startswith("13 of 40 operations")


def test_by_keyboard_alone(page: Page, plain: Path) -> None:
    """Tab reaches everything that can be clicked; Enter opens, Escape closes and focus returns."""
    page.open(plain)
    page.keys(Keys.TAB)
    assert page.run("return document.activeElement.textContent") == "Skip to the verdict"
    page.run("document.querySelector('#operations-table tbody a').focus()")
    page.keys(Keys.ENTER)
    page.until(lambda: page.one("#detail").is_displayed())
    assert page.run("return document.activeElement.id") == "detail"
    page.keys(Keys.ESCAPE)
    page.until(lambda: not page.one("#detail").is_displayed())
    assert page.run("return document.activeElement.textContent") == "#0"


def test_the_time_axis_by_keys(page: Page, plain: Path) -> None:
    """+ − ← → 0 zoom and move all pictures, which no mouse is needed for."""
    page.open(plain)
    axis = "const r = Bokeh.documents[0].roots()[0].x_range; return [r.start, r.end]"
    whole = page.run(axis)
    page.run("document.querySelector('[data-axis=in]').focus()")
    page.keys("+", "+")
    near = page.run(axis)
    page.keys(Keys.ARROW_RIGHT)
    later = page.run(axis)
    page.keys("0")

    assert near[1] - near[0] == pytest.approx((whole[1] - whole[0]) / 4)
    assert later[0] > near[0]
    assert page.run(axis) == whole


def test_messages_between_nodes(page: Page, plain: Path) -> None:
    """Around the moment: who sent what, in which role and term, and what was lost or held."""
    page.open(plain, "#t=0.3")
    page.run("document.querySelector('#messages-window').value = '300'")
    page.run("document.querySelector('#messages-window').dispatchEvent(new Event('change'))")
    page.run("document.querySelector('#messages-details').open = true")
    page.until(lambda: page.all("#messages-table tbody tr"))

    lost = [row for row in page.all("#messages-table tbody tr") if row.text.endswith("lost")]
    assert len(lost) == len(page.all("#messages-picture g.lost")) == 3
    assert page.all("#messages-picture g.held")
    assert "leader 3" in page.text("#messages-picture")
    assert "n1 → n2 AppendEntries, term 3" in page.text("#messages-picture")


def test_a_bar_of_the_timeline_opens_its_operation(page: Page, plain: Path) -> None:
    """A bar selected in Bokeh's picture is the operation that opens."""
    page.open(plain)
    page.run(
        "const source = Bokeh.documents.flatMap((each) => each.roots()).flatMap((each) =>"
        " each.renderers).map((each) => each.data_source).filter((each) =>"
        " each.name === 'operations')[1]; source.selected.indices = [0]"
    )
    page.until(lambda: page.one("#detail").is_displayed())

    assert page.text("#detail-title").startswith(f"#{FAILED} ")


def test_the_counterexample_leads_to_its_operations(page: Page, plain: Path) -> None:
    """A sentence of the story, and a bar of its lanes, are links to trace and lines."""
    page.open(plain)
    page.click(".story a")
    page.until(lambda: page.text("#detail-title").startswith("#0 "))
    link = page.run(
        "return document.querySelector('.lanes').shadowRoot.querySelectorAll('a')[1]"
        ".getAttribute('href')"
    )
    page.run("location.hash = arguments[0]", link)

    page.until(lambda: page.text("#detail-title").startswith("#1 "))
    assert "op=1" in page.driver.current_url


def test_each_picture_has_its_table(page: Page, plain: Path) -> None:
    """A picture is named for a screen reader, and its data stand in a table of the same section."""
    page.open(plain)
    sections = page.run(
        "return [...document.querySelectorAll('.chart, .roles, .lanes, .picture')].map((each) =>"
        " [each.getAttribute('aria-label'), each.closest('section').id])"
    )

    assert len(sections) == CHARTS + 3
    for label, section in sections:
        assert label
        # The list of operations is a section of its own: too long to stand below the bars.
        table = "operations" if section == "timeline" else section
        assert page.all(f"#{table} table, #{table} details"), section


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits(page: Page, plain: Path, width: int, dark: bool) -> None:
    """At 1280 and at 390 pixels, light and dark: nothing is wider than the screen; kept as PNG."""
    page.look(width, 900, dark=dark)
    page.open(plain)
    name = f"{width}-{'dark' if dark else 'light'}"
    page.picture(name)
    assert page.run("return document.documentElement.scrollWidth") == width
    page.open(plain, f"#op={FAILED}")
    page.picture(f"{name}-detail")

    assert page.run("return document.documentElement.scrollWidth") == width
    assert page.log() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(page: Page, plain: Path, dark: bool) -> None:
    """Text has a contrast of at least 4.5 to what is behind it (WCAG 2.2, 1.4.3)."""
    page.look(1280, 900, dark=dark)
    page.open(plain, f"#op={FAILED}")
    found = page.run(CONTRAST)

    assert found == []


CONTRAST = """
const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const bright = ([r, g, b]) => [r, g, b].map((each) => each / 255).map((each) =>
  each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4).reduce((sum, each, at) =>
  sum + each * [0.2126, 0.7152, 0.0722][at], 0);
const behind = (node) => {
  for (let each = node; each; each = each.parentElement) {
    const colour = numbers(getComputedStyle(each).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const poor = new Set();
for (const node of document.querySelectorAll('body *')) {
  const own = [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
  const left_out = 'svg, .read, .skip, script, style, noscript, .chart, b[aria-hidden]';
  if (!own || node.closest(left_out)) continue;
  if (!node.offsetParent && getComputedStyle(node).position !== 'fixed') continue;
  const style = getComputedStyle(node);
  const [one, other] = [bright(numbers(style.color)), bright(behind(node))].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (other + 0.05);
  const what = `${node.tagName}.${node.className} ${node.textContent.trim().slice(0, 30)}`;
  if (ratio < 4.5) poor.add(`${what} ${ratio.toFixed(2)}`);
}
return [...poor];
"""
