"""Regular registers: what a read that begins after a write may not return any more."""

from __future__ import annotations

from typing import Any

import pytest

from labs.harness.checkers.regular import check_regular
from labs.harness.history import History, Op

Event = tuple[str, Any, int, int | None, str]


def history(*events: Event) -> History:
    """(f, value written or read, from, to, type) on one key."""
    ops = [
        Op(number, f, "k", value if f == "write" else None, start, end, type_,  # type: ignore[arg-type]
           output=value if f == "read" else None, index=number)
        for number, (f, value, start, end, type_) in enumerate(events)
    ]  # fmt: skip
    return History(ops, [])


ONE: Event = ("write", 1, 0, 10, "ok")
TWO: Event = ("write", 2, 20, 30, "ok")


@pytest.mark.parametrize(
    ("events", "stale", "phantoms"),
    [
        ((ONE, TWO, ("read", 2, 40, 50, "ok")), 0, 0),
        ((ONE, TWO, ("read", 1, 40, 50, "ok")), 1, 0),
        ((ONE, TWO, ("read", None, 40, 50, "ok")), 1, 0),
        ((("read", None, 0, 5, "ok"), ONE), 0, 0),
        ((("read", None, 0, 50, "ok"), ONE), 0, 0),
        ((ONE, TWO, ("read", 1, 25, 50, "ok")), 0, 0),  # during the write: either
        ((ONE, TWO, ("read", 2, 25, 26, "ok"), ("read", 1, 27, 28, "ok")), 0, 0),
        ((ONE, TWO, ("read", 1, 30, 50, "ok")), 0, 0),  # equal times are concurrent
        ((ONE, ("read", 7, 40, 50, "ok")), 0, 1),
        ((("read", 1, 0, 5, "ok"), ("write", 1, 6, 9, "ok")), 0, 1),  # read before it was written
        ((ONE, ("write", 2, 20, 30, "fail"), ("read", 2, 40, 50, "ok")), 0, 1),
        # Of unknown fate: it may take effect late, over a write that was acknowledged meanwhile.
        ((("write", 1, 0, None, "info"), TWO, ("read", 1, 40, 50, "ok")), 0, 0),
        ((ONE, ("write", 2, 20, None, "info"), ("read", 1, 40, 50, "ok")), 0, 0),
        ((ONE, TWO, ("read", 1, 40, None, "fail")), 0, 0),
    ],
)
def test_what_a_read_may_return(events: tuple[Event, ...], stale: int, phantoms: int) -> None:
    """Lamport 1986, §4: the last value written before the read, or one written during it."""
    result = check_regular(history(*events))
    assert (result.stats["stale"], result.stats["phantoms"]) == (stale, phantoms)
    assert result.valid is not (stale + phantoms > 0)


def test_the_story_names_the_write_that_was_not_seen() -> None:
    result = check_regular(history(ONE, TWO, ("read", 1, 40, 50, "ok")))
    found = result.counterexample
    assert found is not None
    assert (found.anomaly, [op.value for op in found.ops]) == ("stale read", [2, None])
    assert " although " in found.sentences[-1]
