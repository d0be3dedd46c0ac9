"""EDN, Jepsen's histories, porcupine's logs: what is read, what is refused, what is written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest

from labs.harness.checkers import check_linearizable
from labs.harness.history import (
    History,
    HistoryError,
    Op,
    load,
    load_jepsen,
    load_porcupine,
    parse_jepsen,
    save,
    save_edn,
)
from labs.harness.history.edn import EdnError, Keyword, Symbol, forms, write
from tests.checkers.brute import linearizable, random_register


def read(text: str) -> list[Any]:
    """The top-level elements."""
    return [value for _, value in forms(text)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nil true false", [None, True, False]),
        ("1 -2 +3 4N 1.5 2e3 1.0M 3/4", [1, -2, 3, 4, 1.5, 2000.0, 1.0, Fraction(3, 4)]),
        (
            ':a :b/c x - +x "s"',
            [*map(Keyword, ("a", "b/c")), *map(Symbol, "x-"), Symbol("+x"), "s"],
        ),
        (r'"a\n\t\"\\\u0041" \a \newline \u0042', ['a\n\t"\\A', "a", "\n", "B"]),
        ("(1, 2) ; a comment\n [3]", [[1, 2], [3]]),
        ("{:a 1, :b [2]} #{1 2}", [{Keyword("a"): 1, Keyword("b"): [2]}, frozenset({1, 2})]),
        ('#inst "2020" #jepsen.history.Op{:index 0}', ["2020", {Keyword("index"): 0}]),
        ("1 #_ 2 #_ [3 #_ 4] 5 #_ #_ 6 7 8", [1, 5, 8]),
        ("[[1] [2]]", [[1], [2]]),
        ("", []),
    ],
)
def test_edn(text: str, value: list[Any]) -> None:
    """What edn-format.org specifies."""
    assert read(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1 2", "truncated"),
        ("1 ]", "unexpected ']'"),
        ("[1 }", "unexpected '}'"),
        ("{:a}", "has no value"),
        ("{:a 1 :a 2}", "a key twice"),
        ("{[1] 2}", "collection as a key"),
        ("#{1 1}", "an element twice"),
        ('"abc', "string without end"),
        (r'"\q"', "unknown escape"),
        ("12x", "not a number"),
        ("1/0", "not a number"),
        ("::", "not a keyword"),
        ("#_", "nothing follows a tag"),
        ("[" * 300, "nested too deeply"),
        ("[1 #tag]", "nothing follows a tag"),
    ],
)
def test_what_is_not_edn(text: str, message: str) -> None:
    """Strict: no guessing."""
    with pytest.raises(EdnError, match=message):
        read(text)


def test_edn_survives_writing() -> None:
    """What is written is read back."""
    value = [None, True, 1, 2.5, 'a"\\\n', Keyword("k"), {"name": [1], 3: "x y"}, frozenset({1})]
    [again] = read("[" + write(value) + "]")
    assert again[:6] == value[:6]
    assert again[6] == {Keyword("name"): [1], 3: "x y"}
    assert again[7] == frozenset({1})


JEPSEN = """
{:type :invoke, :f :read,  :value nil,   :process 0, :time 10, :index 0}
{:type :info,   :f :start, :value "cut", :process :nemesis, :time 12, :index 1}
{:type :invoke, :f :cas,   :value [1 2], :process 1, :time 11, :index 2}
{:type :ok,     :f :read,  :value 3,     :process 0, :time 20, :index 3}
{:type :info,   :f :cas,   :value [1 2], :process 1, :time 30, :index 4, :error :timeout}
"""


def test_jepsen_history() -> None:
    """Order decides: times of several threads that run back a little are moved forward."""
    history = parse_jepsen(JEPSEN.encode())
    first, cas = history.ops

    assert (first.f, first.output, first.invoke_ns, first.return_ns) == ("read", 3, 10, 20)
    assert (cas.type, cas.value, cas.invoke_ns, cas.error) == ("info", [1, 2], 13, ":timeout")
    assert [(event.f, event.value, event.time_ns) for event in history.nemesis] == [
        ("start", "cut", 12)
    ]


def test_independent_keys() -> None:
    """Jepsen's independent tuples are taken apart."""
    text = b"{:type :invoke :f :write :value [7 1]} {:type :ok :f :write :value [7 1]}"
    assert [op.key for op in parse_jepsen(text, independent=True).ops] == ["7"]
    assert [op.value for op in parse_jepsen(text, independent=True).ops] == [1]


INVOKE = "{:type :invoke :f :read :value nil :process 0 :time 10 :index 0}\n"
MALFORMED = {
    "truncated": ("{:type :invoke :f", 1, "truncated"),
    "a number for an event": ("12", 1, "not an event"),
    "not UTF-8": (b"{:type \xff}", 1, "not UTF-8"),
    "unknown type": ("{:type :done}", 1, "type is 'done'"),
    "no f": ("{:type :invoke :value 3}", 1, "not a name"),
    "process of the wrong type": ("{:type :invoke :f :read :process [1]}", 1, "process is [1]"),
    "time of the wrong type": ("{:type :invoke :f :read :time 1.5}", 1, "time is 1.5"),
    "return without invoke": ("\n{:type :ok :f :read :value 1}", 2, "without an invoke"),
    "two open operations": (
        INVOKE + INVOKE.replace("index 0", "index 1"),
        2,
        "two open operations",
    ),
    "index runs backwards": (INVOKE + "{:type :ok :f :read :index 0}", 2, "index 0 after 0"),
    "time runs backwards": (
        INVOKE + "{:type :ok :f :read :value 1 :process 0 :time 9 :index 1}",
        2,
        "time runs backwards",
    ),
    "cas of one value": ("{:type :invoke :f :cas :value 1}", 1, "not of [from, to]"),
    "array of numbers": ("[1 2]", 1, "not an event"),
    "broken JSON": ('[{"type": "invoke"', 1, "not JSON"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_jepsen_histories(name: str, tmp_path: Path) -> None:
    """A clear error with file and line; nothing half-read is judged."""
    content, line, message = MALFORMED[name]
    path = tmp_path / "bad.edn"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(HistoryError) as error:
        load_jepsen(path)

    assert str(error.value).startswith(f"{path}:{line}: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        ("INFO  jepsen.util - 0\t:invoke\t:read\tnil\nINFO  jepsen.ut", 2, "not a line"),
        ("INFO  jepsen.util - 0\t:ok\t:read\t3", 1, "without an invoke"),
        ("INFO  jepsen.util - 0\t:invoke\t:cas\t3", 1, "cas of 3"),
        (
            "INFO  jepsen.util - 0\t:invoke\t:write\t3\nINFO  jepsen.util - 0\t:ok\t:write\t4",
            2,
            "with 4",
        ),
        ("{:process 0, :type :invoke, :f :get", 1, "truncated"),
        ('{:process 0, :type :invoke, :f :pop, :key "1", :value "x"}', 1, "f 'pop'"),
        ('{:process 0, :type :invoke, :f :put, :key "1", :value 3}', 1, "not a string"),
        ('{:process "0", :type :invoke, :f :put, :key "1", :value "3"}', 1, "process '0'"),
    ],
)
def test_malformed_porcupine_logs(lines: str, line: int, message: str, tmp_path: Path) -> None:
    """The same for porcupine's logs."""
    path = tmp_path / "bad.log"
    path.write_text(lines)
    with pytest.raises(HistoryError) as error:
        load_porcupine(path)

    assert f"{path}:{line}: " in str(error.value)
    assert message in str(error.value)


def test_porcupine_semantics(tmp_path: Path) -> None:
    """A failed cas observed a value other than `from`; a read that timed out says nothing."""
    path = tmp_path / "etcd.log"
    events = ["0 :invoke :cas [1 2]", "0 :fail :cas [1 2]", "1 :invoke :read nil"]
    events += ["1 :fail :read :timed-out", "2 :invoke :write 3", "2 :info :write :timed-out"]
    lines = ("\t".join(event.split(" ", 3)) for event in events)
    path.write_text("".join(f"INFO  jepsen.util - {line}\n" for line in lines))
    cas, read_, write_ = load_porcupine(path).ops

    assert (cas.type, cas.extra) == ("fail", {"mismatch": True})
    assert (read_.type, read_.error) == ("fail", "timed out")
    assert (write_.type, write_.value, write_.return_ns) == ("info", 3, None)


def same_order(history: History) -> list[tuple[Any, ...]]:
    """What a verdict depends on, with times reduced to what precedes what."""

    def before(op: Op) -> list[int]:
        ends = ((other.index, other.return_ns) for other in history.ops)
        return [index for index, end in ends if end is not None and end < op.invoke_ns]

    return [
        (op.f, op.key, op.value, op.type, op.output if op.f == "read" else None, before(op))
        for op in history.ops
    ]


def touching(history: History) -> bool:
    """A process calls at the instant of its own return: EDN, which has order only, orders them."""
    ends = {(op.process, op.return_ns) for op in history.ops}
    return any((op.process, op.invoke_ns) in ends for op in history.ops)


def numbered(history: History) -> History:
    """Operations by process; those called at one instant have no order among each other."""
    history.ops.sort(key=lambda op: op.process)
    for at, op in enumerate(history.ops):
        op.index = at
    return history


def test_histories_survive_writing(tmp_path: Path) -> None:
    """JSON lines and Jepsen EDN keep every operation, and equal times stay concurrent."""
    for seed in range(60):
        history = random_register(Random(seed))
        for op in history.ops:
            op.key = "x"
        save(history, tmp_path / "h.jsonl")
        save_edn(history, tmp_path / "h.edn")
        numbered(history)
        for again in (
            load(tmp_path / "h.jsonl"),
            load_jepsen(tmp_path / "h.edn", independent=True),
        ):
            assert check_linearizable(again).valid == linearizable(again.ops), f"seed {seed}"
            numbered(again)
            assert [op.value for op in again.ops] == [op.value for op in history.ops]
            assert [op.extra.keys() - {"gave_up_ns"} for op in again.ops] == [
                op.extra.keys() for op in history.ops
            ]
            if again.source.endswith("jsonl") or not touching(history):
                assert same_order(again) == same_order(history), f"seed {seed}"
