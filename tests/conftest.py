"""Options of the whole test suite."""

from __future__ import annotations

import pytest

from tests.checkers.seeds import COMMAND


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what happens now into the golden transcripts (tests/**/testdata/*.txt)",
    )


def pytest_report_header() -> str:
    """The seed is told even when everything holds: a history that was lucky can be had again."""
    return f"random histories: {COMMAND}"
