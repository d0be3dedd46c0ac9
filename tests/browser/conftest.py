"""A headless Chromium from the distribution; without one these tests are left out, except in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.harness.report.load import load_run
from labs.harness.report.write import write
from tests.browser.page import Page
from tests.report.runs import HOSTILE, make_run

PROGRAMS = ("chromium", "chromedriver")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Page]:
    """One browser for the session: to start one takes longer than most tests."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} missing: run tests/browser/install.sh"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    page = Page()
    yield page
    page.quit()


@pytest.fixture
def page(chromium: Page) -> Page:
    """The browser at 1280 by 900, light, with nothing seen yet."""
    chromium.reset()
    return chromium


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an ordinary small run."""
    return write(load_run(make_run(tmp_path_factory.mktemp("plain") / "run")))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run whose every text wants to be more than text."""
    directory = make_run(tmp_path_factory.mktemp("hostile") / "run", operations=75, values=HOSTILE)
    return write(load_run(directory))
