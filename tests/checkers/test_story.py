"""Counterexamples as stories: at most six operations, numbered sentences, lanes in text and SVG."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from labs.harness.checkers import (
    check_linearizable,
    check_lost_writes,
    draw_svg,
    draw_text,
)
from labs.harness.checkers.bench_cases import simulated
from labs.harness.checkers.story import short
from labs.harness.history import History, NemesisEvent, Op
from tests.checkers.brute import random_register

SECOND = 10**9


def op(process: int, f: str, value: Any, call: float, end: float | None, node: str) -> Op:
    """Times in seconds."""
    kind = "ok" if end is not None else "info"
    argument = None if f == "read" else value
    ends = None if end is None else round(end * SECOND)
    return Op(process, f, "x", argument, round(call * SECOND), ends, kind, value, node=node)  # type: ignore[arg-type]


def split_brain() -> History:
    """The old primary goes on alone on the minority side, a second one beside it."""
    value = {"id": 1, "target": "n1 n2 c1 | n3 n4 n5 c2"}
    events = [
        NemesisEvent(0, SECOND, "info", "partition", value | {"phase": "injected"}),
        NemesisEvent(1, 6 * SECOND, "info", "partition", value | {"phase": "healed"}),
    ]
    ops = [
        op(number, "write", number, 0.01 * number, 0.01 * number + 0.005, "n1")
        for number in range(40)
    ]
    ops += [
        op(50, "write", 41, 2.0, 2.1, "n1"),
        op(51, "write", 42, 2.5, 2.6, "n3"),
        op(7, "read", 41, 4.0, 4.1, "n1"),
        op(52, "read", 42, 4.5, 4.6, "n4"),
    ]
    return History(ops, events)


def test_the_sentence_of_the_issue() -> None:
    """Issue 4: "Process 7, on the minority side, read 41 although 42 had been acknowledged …"."""
    history = split_brain()
    result = check_linearizable(history)
    story = result.counterexample

    assert result.valid is False
    assert story is not None
    assert story.anomaly == "stale read"
    assert len(story.ops) <= 6
    told = "read 41 although 42 had been acknowledged 1.4 s before (4.000 s to 4.100 s)"
    times = ("sent at 2.000 s, acknowledged at 2.100 s", "sent at 2.500 s, acknowledged at 2.600 s")
    assert story.sentences == [
        f"1. Process 50, on the minority side (n1), wrote 41 ({times[0]}).",
        f"2. Process 51, on the majority side (n3), wrote 42 ({times[1]}).",
        f"3. Process 7, on the minority side (n1), {told}.",
    ]


def test_the_lanes() -> None:
    """A lane per process, the forbidden interval and the fault across them."""
    history = split_brain()
    story = check_linearizable(history).counterexample
    assert story is not None
    lines = draw_text(history, story).splitlines()

    assert lines[0].startswith("fault")
    assert "partition" in lines[0]
    assert [line.split(" at ")[0] for line in lines[1:4]] == [
        "process 50",
        "process 51",
        "process 7",
    ]
    assert "w 41" in lines[1]
    assert lines[4].startswith("forbidden")
    # The forbidden interval begins where 42 was acknowledged and covers the stale read.
    assert lines[4].index("×") == lines[2].rindex("┤")
    assert lines[4].rindex("×") >= lines[3].rindex("┤")
    assert "2.600 s" in lines[5]
    assert max(map(len, lines)) <= 120


def test_the_drawing_is_well_formed() -> None:
    """One self-contained SVG element; whatever was written is escaped."""
    history = split_brain()
    for one in history.ops:
        if one.f == "write" and one.value == 41:
            one.value = one.output = "<b>&41"
        if one.f == "read" and one.output == 41:
            one.output = "<b>&41"
    story = check_linearizable(history).counterexample
    assert story is not None
    root = ET.fromstring(draw_svg(history, story))
    kinds = [rect.get("class") for rect in root.iter("{http://www.w3.org/2000/svg}rect")]

    assert kinds.count("fault") == 1
    assert kinds.count("forbidden") == 1
    assert len(kinds) == 2 + len(story.ops)


@pytest.mark.parametrize("seed", range(0, 60, 1))
def test_every_story_can_be_told(seed: int) -> None:
    """Whatever breaks, the story has at most six operations, sentences in order, and drawings."""
    history = random_register(Random(seed), unique=seed % 2 == 0)
    story = check_linearizable(history).counterexample
    if story is None:
        return
    assert 1 <= len(story.ops) <= 6
    assert [line.split(".")[0] for line in story.sentences] == [
        str(number) for number in range(1, len(story.ops) + 1)
    ]
    assert draw_text(history, story)
    ET.fromstring(draw_svg(history, story))


STORIES: dict[str, list[Op]] = {
    "thin-air read": [op(0, "read", 9, 0, 1, "n1")],
    "aborted read (G1a)": [
        Op(0, "write", "x", 9, 0, 1, "fail"),
        op(1, "read", 9, 2, 3, "n1"),
    ],
    "read from the future": [op(0, "read", 9, 0, 1, "n1"), op(1, "write", 9, 2, 3, "n1")],
    "stale read": [
        op(0, "write", 1, 0, 1, "n1"),
        op(0, "write", 2, 2, 3, "n1"),
        op(1, "read", 1, 4, 5, "n2"),
    ],
    "lost update": [
        op(0, "write", 1, 0, 1, "n1"),
        op(1, "cas", [1, 2], 2, 3, "n1"),
        op(2, "cas", [1, 3], 2, 3, "n3"),
    ],
    "circular information flow (G1c)": [
        op(0, "cas", [3, 2], 0, 9, "n1"),
        op(1, "cas", [2, 3], 0, 9, "n2"),
    ],
}


@pytest.mark.parametrize("name", STORIES)
def test_anomalies_have_their_standard_names(name: str) -> None:
    """Each put into a history is found and named."""
    result = check_linearizable(History(STORIES[name]))
    assert result.valid is False
    assert result.algorithm == "zones"
    assert result.counterexample is not None
    assert result.counterexample.anomaly == name


def test_two_cas_of_one_value() -> None:
    """One after the other: the second is told with the first; at once: both."""
    ops = [op(0, "write", 1, 0, 1, "n1"), op(1, "cas", [1, 2], 2, 3, "n1")]
    later = check_linearizable(History([*ops, op(2, "cas", [1, 3], 4, 5, "n3")])).counterexample
    assert later is not None
    assert later.sentences[-1] == (
        "3. Process 2, at n3, replaced 1 by 3 although 2 had replaced it 1.0 s before "
        "(sent at 4.000 s, acknowledged at 5.000 s)."
    )
    at_once = check_linearizable(History([*ops, op(2, "cas", [1, 3], 2, 3, "n3")])).counterexample
    assert at_once is not None
    assert at_once.summary == "two compare-and-sets both replaced 1"


def test_a_stale_read_of_a_chain() -> None:
    """With cas: an old value read after the value that replaced it had been seen."""
    ops = [
        op(0, "write", 1, 0, 1, "n1"),
        op(1, "cas", [1, 2], 2, 3, "n1"),
        op(2, "read", 1, 4, 5, "n2"),
    ]
    story = check_linearizable(History(ops)).counterexample
    assert story is not None
    assert story.anomaly == "stale read"
    assert "although" in story.sentences[-1]


def test_the_story_of_a_lost_write() -> None:
    """The write, its acknowledgement, and the read that does not show it."""
    read = op(9, "read", None, 5, 5.1, "n3")
    read.extra["final"] = True
    story = check_lost_writes(History([op(1, "write", 42, 0, 1, "n1"), read])).counterexample
    assert story is not None
    assert story.sentences[1] == (
        "2. Process 9, at n3, read nothing although 42 had been acknowledged 4.0 s before "
        "(5.000 s to 5.100 s)."
    )


def test_the_story_of_a_chain_names_what_replaced_the_value() -> None:
    """With the cas that wrote the value read, and the other side's write; not the chain's root."""
    ops = [
        op(0, "write", 30, 0, 1, "n1"),
        op(1, "cas", [30, 49], 2, 3, "n1"),
        op(2, "write", 106, 4, 5, "n1"),
        op(3, "read", 49, 6, 7, "n3"),
    ]
    story = check_linearizable(History(ops)).counterexample
    assert story is not None
    assert story.summary == "49 was read although 106 had been acknowledged before"
    assert [(one.f, one.value) for one in story.ops] == [
        ("cas", [30, 49]),
        ("write", 106),
        ("read", None),
    ]


@pytest.mark.parametrize("unique", [True, False], ids=["unique values", "repeated values"])
@pytest.mark.parametrize("name", STORIES)
def test_each_anomaly_put_into_a_valid_history_is_named(name: str, unique: bool) -> None:
    """Among 2,000 operations on three keys the one anomaly is found and told."""
    history = simulated(2_000, keys=3, clients=5, values=0 if unique else 50)
    assert check_linearizable(history).valid is True
    begin = history.ops[-1].invoke_ns + SECOND
    for at, one in enumerate(STORIES[name]):
        end = None if one.return_ns is None else one.return_ns + begin
        times = {"invoke_ns": one.invoke_ns + begin, "return_ns": end, "key": "injected"}
        history.ops.append(replace(one, process=100 + at, index=2_000 + at, **times))
    history.ops.sort(key=lambda one: (one.invoke_ns, one.index))
    result = check_linearizable(history)

    assert result.valid is False
    assert result.counterexample is not None
    assert result.counterexample.anomaly == name
    assert {one.key for one in result.counterexample.ops} == {"injected"}


def test_times_are_told_as_what_they_are() -> None:
    """Positions of a log without times stay positions, the first among them."""
    first = Op(0, "write", "x", 1, 0, 1, "ok", 1)
    story = check_linearizable(History([first, Op(1, "read", "x", None, 2, 3, "ok", 7)]))
    assert story.counterexample is not None
    assert story.counterexample.sentences == ["1. Process 1 read 7 (t=2 to t=3)."]


def test_long_values_are_shortened() -> None:
    """Of a long list the ends are told."""
    assert short(list(range(300))) == "[0, 1, …, 299] (300 elements)"
    assert len(short("x" * 500)) == 72
