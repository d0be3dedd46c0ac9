"""Content that wants to be more than text: in keys, values, errors, paths, names, everywhere."""

from __future__ import annotations

from pathlib import Path

from labs.harness.report.data import shown
from tests.browser.page import Page
from tests.report.runs import HOSTILE


def test_hostile_content_is_shown_as_text_and_never_run(page: Page, hostile: Path) -> None:
    """Every section is drawn, every operation and every line looked at, and nothing of it ran."""
    page.open(hostile)
    for number in range(len(HOSTILE)):
        page.run("location.hash = `#op=${arguments[0]}`", number)
        page.until(lambda n=number: page.text("#detail-title").startswith(f"#{n} "))
        assert shown(HOSTILE[number])[:40] in page.text("#detail-title"), HOSTILE[number]
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    page.run("document.querySelector('#logs-level').value = '0'")
    page.run("document.querySelector('#logs-form').dispatchEvent(new Event('input'))")

    assert page.run("return window.hit") is None
    strange = page.run(
        "return document.querySelectorAll('main b b, img, main svg [onload], iframe, object,"
        " [onerror]').length"
    )
    assert strange == 0
    scripts = page.run("return [...document.scripts].map((each) => each.id)")
    assert scripts == ["data", "pictures", "places", "", ""]
    assert page.log() == []
    page.picture("hostile")


def test_hovering_shows_no_markup_of_the_run(page: Page, hostile: Path) -> None:
    """Bokeh's tooltips are HTML of Bokeh's own: only numbers of ours get into them."""
    page.open(hostile)
    columns = page.run(
        "return Bokeh.documents.flatMap((each) => each.roots()).flatMap((each) =>"
        " each.renderers).map((each) => each.data_source).filter((each) =>"
        " each.name === 'operations').flatMap((each) => Object.keys(each.data))"
    )

    assert set(columns) == {"left", "right", "y", "number", "ms"}
