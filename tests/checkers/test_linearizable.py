"""`check_linearizable` for registers: against brute force, on known shapes, and its witnesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from labs.harness.checkers import check_linearizable
from labs.harness.checkers.bench_cases import simulated, spoiled
from labs.harness.checkers.greedy import hard
from labs.harness.checkers.register_refute import refuted
from labs.harness.checkers.registers import by_search, split
from labs.harness.checkers.result import freeze
from labs.harness.checkers.zone_pass import undecided
from labs.harness.history import History, Op
from tests.checkers.brute import linearizable, random_register, register_step
from tests.checkers.seeds import COMMAND, FIRST_SEED, RUNS


def op(
    process: int,
    f: str,
    value: Any,
    invoke: int,
    end: int | None,
    **fields: Any,
) -> Op:
    """One operation on key x; a read's value is what it read."""
    kind = fields.pop("type", "ok" if end is not None else "info")
    argument = None if f == "read" else value
    return Op(process, f, "x", argument, invoke, end, kind, value, **fields)


def assert_witness(history: History, order: Sequence[Op], initial: Any = None) -> None:
    """The order contains every completed operation, respects real time, and is legal."""
    said = [o for o in history.ops if o.type == "ok"]
    assert {id(o) for o in said} <= {id(o) for o in order}
    state = initial
    latest_call = -1
    for operation in order:
        assert operation.return_ns is None or operation.return_ns >= latest_call, "real time"
        latest_call = max(latest_call, operation.invoke_ns)
        legal, state = register_step(state, operation)
        assert legal


@pytest.fixture
def every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes over all keys at once judge short histories, too."""
    monkeypatch.setattr("labs.harness.checkers.linearizable.SHORT", 0)
    monkeypatch.setattr("labs.harness.checkers.zone_pass.LARGE", 0)


@pytest.mark.usefixtures("every_pass")
@pytest.mark.parametrize("unique", [True, False], ids=["unique values", "repeated values"])
def test_agrees_with_brute_force(unique: bool) -> None:
    """No wrong verdict on random histories of up to 14 operations, and every witness is one."""
    print(COMMAND)
    for seed in range(FIRST_SEED, FIRST_SEED + RUNS // 2):
        history = random_register(Random(seed), unique=unique)
        result = check_linearizable(history, explain=True, witness=True)
        command = f"CHECKER_SEED={seed}: random_register(Random({seed}), unique={unique})"
        assert result.valid == linearizable(history.ops), command
        assert check_linearizable(history, explain=False).valid == result.valid, command
        if result.linearization is not None:
            for order in result.linearization.values():
                assert_witness(history, order)
        if result.counterexample is not None:
            assert len(result.counterexample.ops) <= 6, command
            assert result.counterexample.sentences, command


@pytest.mark.parametrize("few", [0, 200], ids=["from a stretch", "from one operation"])
def test_a_search_is_refuted_only_where_brute_force_confirms(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is proven from a few operations where a search is stuck holds for the whole history."""
    monkeypatch.setattr("labs.harness.checkers.register_search.PATIENCE", 0)
    monkeypatch.setattr("labs.harness.checkers.register_refute.FEW", few)
    monkeypatch.setattr("labs.harness.checkers.register_refute.BEFORE", 0)
    proven = 0
    for seed in range(FIRST_SEED, FIRST_SEED + RUNS // 2):
        history = random_register(Random(seed))
        truth = linearizable(history.ops)
        for ops in split(history.ops).values():
            search = by_search(ops, None)
            while search.run(1000) is None:
                patience = search.patience
                for span in range(1, 10):
                    search.patience = 2 * span
                    false = refuted(search)
                    assert not (false and truth), f"CHECKER_SEED={seed}, {span=}"
                    proven += false
                search.patience = patience
    assert proven > RUNS // 20


def test_a_violation_is_proven_where_it_is() -> None:
    """The search does not go back through all that came before: 32 506 states without the proof."""
    result = check_linearizable(spoiled(simulated(2_000, clients=10, values=5)))

    assert result.valid is False
    assert result.stats["nodes"] < 2_000


@pytest.mark.usefixtures("every_pass")
def test_keys_are_independent() -> None:
    """Linearizability is local: each key is decided alone, and one bad key decides."""
    for seed in range(FIRST_SEED, FIRST_SEED + 200):
        history = random_register(Random(seed), keys=3)
        parts = [[o for o in history.ops if o.key == key] for key in ("k0", "k1", "k2")]
        wanted = all(map(linearizable, parts))
        assert check_linearizable(history).valid == wanted, f"seed {seed}"


def test_unobserved_pending_write_may_not_have_happened() -> None:
    """A timeout is `info`: the write may take effect at any time after its call, or never."""
    never = [op(0, "write", 1, 0, 1), op(1, "write", 2, 2, None), op(2, "read", 1, 9, 10)]
    late = [*never, op(3, "read", 2, 20, 21)]
    back = [*late, op(4, "read", 1, 30, 31)]

    assert check_linearizable(History(never)).valid is True
    assert check_linearizable(History(late)).valid is True
    assert check_linearizable(History(back)).valid is False


@pytest.mark.parametrize(
    ("extra", "valid"),
    [({}, True), ({"mismatch": True}, False), ({"current": 1}, False), ({"current": 2}, True)],
    ids=["ignored", "observed a mismatch", "reported the wrong value", "reported the value"],
)
def test_failed_cas_says_what_its_reply_said(extra: dict[str, Any], valid: bool) -> None:
    """Failed-cas semantics differ: Knossos drops it, porcupine constrains value != from."""
    value = 2 if "current" in extra else 1
    cas = Op(1, "cas", "x", [value if extra.get("mismatch") else 1, 3], 5, 6, "fail", extra=extra)
    written = 1 if extra.get("mismatch") else 2
    history = History([op(0, "write", written, 0, 1), cas])

    assert check_linearizable(history).valid is valid


def test_values_are_compared_as_json() -> None:
    """Python takes True for 1; a store does not."""
    wrong = History([op(0, "write", 1, 0, 1), op(1, "read", True, 2, 3)])
    lists = History([op(0, "write", [1, {"a": 2}], 0, 1), op(1, "read", [1, {"a": 2}], 2, 3)])

    assert check_linearizable(wrong).valid is False
    assert check_linearizable(lists).valid is True


@pytest.mark.usefixtures("every_pass")
def test_values_of_mixed_types() -> None:
    """Python takes True for 1; a store does not: 1, true, [1] and [true] are four values."""
    for seed in range(FIRST_SEED, FIRST_SEED + RUNS):
        random = Random(seed)
        history = _groups(random)
        names: list[Any] = [True, 1, False, 0, "1", 2, [1], [True], {"a": 1}]
        random.shuffle(names)
        frozen: list[Op] = []
        for o in history.ops:
            name = None if o.output is None else names[o.output % len(names)]
            if o.f == "read" and random.random() < 0.1:
                name = random.choice(names)
            o.value, o.output = (name if o.f == "write" else None), name
            frozen.append(replace(o, value=freeze(o.value), output=freeze(o.output)))
        assert check_linearizable(history).valid == linearizable(frozen), f"CHECKER_SEED={seed}"


def test_initial_value() -> None:
    """nil is a value: a read of nothing after a write is a violation."""
    history = History([op(0, "write", 1, 0, 1), op(1, "read", None, 2, 3)])

    assert check_linearizable(history).valid is False
    assert check_linearizable(History([op(0, "read", 7, 0, 1)]), initial=7).valid is True


def test_the_algorithm_is_named() -> None:
    """Always say which algorithm decided."""
    quiet = simulated(500, keys=100, clients=4)
    unique = simulated(500, keys=3, clients=20)
    repeated = simulated(500, keys=1, clients=4, values=3)
    both = History([*unique.ops, *repeated.ops])
    for at, one in enumerate(both.ops):
        one.process, one.key = at, f"{one.key}-{at < 500}"

    assert check_linearizable(quiet).algorithm == "greedy zones"
    assert check_linearizable(unique).algorithm == "zones"
    assert check_linearizable(repeated).algorithm == "register search"
    assert check_linearizable(both).algorithm == "zones and register search"


def test_a_cap_gives_unknown_never_valid() -> None:
    """Timeouts and memory caps give "unknown"."""
    history = simulated(3_000, clients=30, values=3, cas_share=0.3, pending_share=0.1)
    result = check_linearizable(history, timeout_s=0.0)

    assert result.valid == "unknown"
    assert result.stats["undecided keys"] == ["k0"]


def test_a_result_has_no_truth_value() -> None:
    """`if result:` would take "unknown" for valid."""
    with pytest.raises(TypeError):
        bool(check_linearizable(History([])))


@pytest.mark.parametrize(
    "options",
    [
        {"keys": 20},
        {"clients": 10, "values": 5},
        {"clients": 10, "values": 5, "cas_share": 0.2, "pending_share": 0.02},
        {"clients": 5, "pending_share": 0.1, "cas_share": 0.2},
    ],
)
def test_one_stale_read_among_thousands(options: dict[str, Any]) -> None:
    """Low-contention valid histories hide everything: one stale read in them is found."""
    history = simulated(4_000, **options)

    assert check_linearizable(history).valid is True
    broken = check_linearizable(spoiled(history))
    # With few values a stale read may be explained by another write of that value.
    assert broken.valid is False or "values" in options


def test_the_greedy_pass_proves_only_what_brute_force_confirms() -> None:
    """This pass only ever says "linearizable", overlapping or not, spoilt or not."""
    proven = kept = 0
    for seed in range(FIRST_SEED, FIRST_SEED + RUNS):
        random = Random(seed)
        history = _groups(random)
        left, decided = hard(history.ops, None)
        truth = linearizable(history.ops)
        assert decided == 0 or truth, f"CHECKER_SEED={seed}: {history.ops}"
        assert bool(left) is not bool(decided)
        proven += decided
        kept += truth and not decided
    assert proven > RUNS // 5
    assert kept < proven / 4


def test_two_overlapping_writes_may_come_in_either_order() -> None:
    """What is read decides their order; a block once passed over does not come back."""
    either = [op(0, "write", 1, 0, 3), op(1, "write", 2, 1, 4)]
    one, two = op(0, "read", 1, 6, 7), op(0, "read", 2, 8, 9)
    again = [op(1, "write", 1, 6, 8), op(2, "read", 1, 7, 8), op(3, "read", 2, 7, 8)]
    for ops in ([*either, one], [*either, two], [*either, *again]):
        assert hard(ops, None) == ((), 1), ops
    for ops in ([*either, one, two], [*either, op(0, "read", None, 6, 7)]):
        assert hard(ops, None) == (ops, 0), ops


def test_a_read_once_given_to_a_write_is_not_given_back() -> None:
    """With repeated values the pass leaves what it did not find an order for: search finds it."""
    ops = [op(0, "write", 1, 0, 3), op(1, "write", 2, 1, 4), op(0, "read", 1, 6, 7)]
    ops += [op(1, "write", 1, 6, 8), op(2, "read", 1, 7, 8), op(3, "read", 2, 7, 8)]

    assert hard(ops, None) == (ops, 0)
    assert check_linearizable(History(ops)).valid is True


def test_a_free_block_becomes_the_last_one() -> None:
    """1 must stand before 3 as soon as 3 was read, and behind it once 3 has returned."""
    ops = [op(0, "write", 1, 0, 5), op(1, "write", 3, 1, 30), op(2, "write", 2, 2, 20)]
    ops += [op(3, "read", 3, 6, 40), op(0, "read", 1, 21, 22)]
    for more, proven in ((op(2, "read", 3, 31, 32), 1), (op(2, "read", 1, 31, 32), 0)):
        assert linearizable([*ops, more]) is bool(proven)
        assert hard([*ops, more], None)[1] == proven


def _groups(random: Random) -> History:
    """Reads and writes on one key that overlap now and then; reads of what was there, or not."""
    ops: list[Op] = []
    state: list[int | None] = [None]
    values, now, longest = random.choice([0, 2, 3]), 0, random.choice([6, 6, 6, 20])
    for number in range(random.randint(1, 10)):
        now += random.choice([0, 1, 1, 2, 5, 9])
        end = now + random.randint(0, longest)
        if random.random() < 0.5:
            new = random.randrange(values) if values else number
            ops.append(op(number, "write", new, now, end))
            state.append(new)
        else:
            ops.append(op(number, "read", random.choice(state[-2:]), now, end))
    return History(ops)


def test_the_pass_over_all_keys_leaves_what_it_cannot_prove() -> None:
    """Only "linearizable" comes from it; repeated values, truth values and violations are left."""
    proven = [op(0, "write", 1, 0, 1), op(1, "read", 1, 0, 2), op(2, "read", 1, 3, 4)]
    pending = [op(0, "write", 1, 0, None), op(1, "read", 1, 1, 2)]
    for ops in (proven, pending):
        assert undecided(ops, None) == (set(), 1)
    for ops in (
        [op(0, "write", 1, 0, 1), op(1, "read", True, 2, 3)],
        [op(0, "write", 1, 0, 1), op(0, "write", 1, 2, 3)],
        [op(1, "read", 1, 0, 1), op(0, "write", 1, 2, 3)],
        [op(1, "read", 1, 0, 3), op(0, "write", True, 1, 2)],
        [op(1, "read", True, 0, 3), op(0, "write", 1, 1, 2)],
        [op(1, "read", 1, 0, 1), op(0, "write", 1, 2, None)],
        [op(0, "write", [1], 0, 1)],
        [op(0, "write", 1, 5, 6), op(1, "read", None, 0, 1)],
        [op(0, "write", 1, 0, None), op(1, "write", 1, 0, None), op(2, "read", 1, 1, 2)],
    ):
        assert undecided(ops, None)[0] == {"x"}, ops


@pytest.mark.usefixtures("every_pass")
def test_a_hot_key_beside_one_where_nothing_was_answered() -> None:
    """The other key's values are no concern of the hot one's; here they are no dictionary keys."""
    write, read = op(0, "write", 1, 0, 2), op(2, "read", 1, 9, 10)
    other = replace(op(1, "write", [1], 5, None), key="y")

    assert undecided([write, other, read], None) == ({"y"}, 1)
