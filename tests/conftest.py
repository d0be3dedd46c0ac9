"""Options of the whole test suite."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.checkers.seeds import COMMAND

# How long an example takes, or takes to draw, is the machine's: no test is about that. (The rest is
# hypothesis' own choice: with CI in the environment the same examples each time, else new ones.)
settings.register_profile(
    "unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what happens now into the golden transcripts (tests/**/testdata/*.txt)",
    )


def pytest_configure() -> None:
    """Ctrl-C reaches what the tests start, as in a terminal.

    A shell's background jobs ignore it, and so would everything that such a suite starts.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What this machine could not run is told in one line, beside pytest's line for each test."""
    left_out = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and "left out" in report.longrepr[2]
    ]
    if left_out:
        why = left_out[0].longrepr[2].removeprefix("Skipped: ")
        terminalreporter.write_line(f"{len(left_out)} tests were left out here: {why}")


def pytest_report_header() -> str:
    """The seed is told even when everything holds: a history that was lucky can be had again."""
    return f"random histories: {COMMAND}"
