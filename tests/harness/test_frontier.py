"""`make frontier-quorum`: a small sweep for real, and its judgement on histories made by hand."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from labs.harness.frontier.run import Outcome, is_stale, judge, run
from labs.harness.frontier.settings import SETTINGS, Setting
from labs.harness.frontier.summary import frontier, point
from labs.harness.frontier.sweep import sweep
from labs.harness.history import History, Op

# A process that is killed closes nothing, in a simulation as in life.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def _swept() -> Iterator[None]:
    """What such a process left is collected here, and not during somebody else's test."""
    yield
    gc.collect()


def _setting(name: str) -> Setting:
    return next(each for each in SETTINGS if each.name == name)


@pytest.mark.slow
def test_two_seeds_of_three_settings_make_a_table_and_a_page(tmp_path: Path) -> None:
    """Raft loses nothing and is linearizable, and answers less often than one replica does, whose
    reads are stale; the page is one file that asks nobody for anything."""
    told = Console(record=True, width=150)
    settings = [_setting(name) for name in ("R1 W1", "R2 W2 sloppy", "Raft")]
    one, _, raft = sweep(range(2), tmp_path, told, settings=settings, processes=2)

    assert (raft.lost.value, raft.stale.value, raft.not_linearizable.value) == (0, 0, 0)
    assert one.stale.value > 0
    assert one.not_linearizable.value == 100
    assert raft.available.value < one.available.value
    text = told.export_text()
    for word in ("etcd", "Dynamo", "Cassandra ONE", "stale reads %"):
        assert word in text
    page = (tmp_path / "report.html").read_text()
    assert "R2 W2 sloppy (Dynamo)" in page
    # (Bokeh's own script, which is inside, speaks of links and images that it could make.)
    assert not re.search(r"<script[^>]*\ssrc=|<link[^>]*stylesheet", page), "it asks for nothing"


@pytest.mark.slow
def test_a_seed_names_a_run() -> None:
    """Setting and seed give the same outcome, all of it."""
    assert run((_setting("R2 W2"), 3)) == run((_setting("R2 W2"), 3))


def test_every_default_that_is_marked_is_in_the_sweep() -> None:
    """Dynamo's (3, 2, 2) sloppy, Cassandra's ONE and QUORUM, etcd's majority; all R and W."""
    marks = {each.mark: each for each in SETTINGS if each.mark}

    assert set(marks) == {"Cassandra ONE", "Cassandra QUORUM", "Dynamo", "etcd"}
    dynamo = marks["Dynamo"]
    assert (dynamo.read, dynamo.write, dynamo.sloppy, dynamo.overlaps) == (2, 2, True, False)
    strict = {(each.read, each.write) for each in SETTINGS if each.read and not each.sloppy}
    assert strict == {(read, write) for read in (1, 2, 3) for write in (1, 2, 3)}


def _op(f: str, value: int | None, begin: int, end: int, key: str = "register-0") -> Op:
    written = None if f == "read" else value
    return Op(begin, f, key, written, begin, end, "ok", output=value if f == "read" else None)


def test_stale_is_what_had_certainly_been_replaced() -> None:
    """A read during the newer write, or one that finds what is newest, is none."""
    old, new = _op("write", 1, 0, 10), _op("write", 2, 20, 30)

    assert is_stale(_op("read", 1, 40, 50), [old, new])
    assert is_stale(_op("read", None, 40, 50), [old, new])
    assert not is_stale(_op("read", 1, 25, 50), [old, new])
    assert not is_stale(_op("read", 2, 40, 50), [old, new])
    assert not is_stale(_op("read", None, 5, 50), [old, new])


def test_a_write_that_no_final_read_finds_is_lost() -> None:
    """Of keys that are written once this is exact; registers are judged for their order alone."""
    kept, gone = _op("write", 1, 0, 10, "once-1"), _op("write", 2, 5, 15, "once-2")
    finals = [_op("read", 1, 50, 60, "once-1"), _op("read", None, 50, 60, "once-2")]
    for final in finals:
        final.extra["final"] = True
    found = judge("R1 W1", 1, History([kept, gone, *finals]))

    assert (found.acknowledged, found.lost, found.asked, found.reads) == (2, 1, 2, 0)


def test_the_frontier_is_what_nothing_else_beats() -> None:
    """Pareto: worse in one figure and better in another stays, worse in one and equal else goes."""
    figures = {"R1 W1": (99, 9), "R2 W2": (95, 0), "R3 W3": (90, 0)}
    points = [
        point(_setting(name), [Outcome(name, 1, 100, answered, 5.0, 100, stale, 20, 0, True)])
        for name, (answered, stale) in figures.items()
    ]

    assert frontier(points) == {"R1 W1", "R2 W2"}


def test_an_interval_covers_the_spread_of_the_runs() -> None:
    """Over runs, not operations: two runs that differ give a wide one, two alike give none."""
    alike = [Outcome("Raft", seed, 100, 90, 5.0, 50, 0, 20, 0, True) for seed in (1, 2)]
    apart = [Outcome("Raft", 1, 100, 50, 5.0, 50, 0, 20, 0, True), alike[0]]
    first, second = (point(_setting("Raft"), some).available for some in (alike, apart))

    assert (first.low, first.value, first.high) == (90, 90, 90)
    assert (second.low, second.value, second.high) == (50, 70, 90)
