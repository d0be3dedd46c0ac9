"""Each type by its sentence of the papers, in the smallest history that shows it."""

from __future__ import annotations

import pytest

from services.protocols.crdt import GCounter, LWWRegister, MVRegister, ORSet, PNCounter, Sequence


def test_equal_counts_of_two_nodes_are_two_counts() -> None:
    """Study §3.1.1: a vector with an entry per replica, since a maximum of sums would lose one."""
    counter = GCounter()
    a, b = counter.increment("a", 3), counter.increment("b", 3)

    assert a.merge(b).value == 6
    assert a.merge(b).merge(a).value == 6
    with pytest.raises(ValueError, match="only grows"):
        counter.increment("a", -1)


def test_a_counter_that_goes_down_can_go_below_zero() -> None:
    """Study §3.1.3: the invariant "never negative" can't be kept by merging."""
    one = PNCounter().add("a", 1)
    assert one.add("a", -1).merge(one.add("b", -1)).value == -1


def test_the_last_writer_wins_and_a_slow_clock_never_does() -> None:
    """A write made after the other was read is lost, because its node's clock runs behind."""
    read = LWWRegister().assign("a", "old", 100.0)
    answered = read.assign("b", "new", 99.0)

    assert answered.value == "old"
    assert read.assign("b", "new", 100.0).value == "new", "equal times: the greater name"


def test_siblings_stay_until_a_write_has_seen_them() -> None:
    """Dynamo's shopping cart: two carts, then one that was made of both."""
    start = MVRegister().assign("a", ["milk"])
    a, b = start.assign("a", ["milk", "eggs"]), start.assign("b", ["milk", "flour"])
    both = a.merge(b)

    assert both.values == [["milk", "eggs"], ["milk", "flour"]]
    assert both.assign("b", ["milk", "eggs", "flour"]).merge(a).merge(b).values == [
        ["milk", "eggs", "flour"]]  # fmt: skip


def test_an_add_wins_over_a_remove_that_has_not_seen_it() -> None:
    """Study §3.3.5: "add wins"; and an element can come back, which a 2P-set's can't."""
    start = ORSet().add("a", "x")
    removed, added = start.remove("x"), start.add("b", "x")

    assert start.merge(removed).value == frozenset()
    assert removed.merge(added).value == {"x"}
    assert removed.merge(added).remove("x").merge(start).merge(added).value == frozenset()
    assert removed.add("a", "x").value == {"x"}


def test_a_set_keeps_no_tombstones() -> None:
    """Bieniusa et al.: a thousand adds and removes leave a vector with one entry."""
    state = ORSet()
    for _ in range(1_000):
        state = state.add("a", "x").remove("x")
    assert not state.dots.values
    assert state.dots.context == {"a": 1_000}


def test_two_authors_at_one_place() -> None:
    """Both words stay whole, and stand in the same order for both."""
    text = Sequence()
    for at, letter in enumerate("ac"):
        text = text.insert("a", at, letter)
    one, other = text, text
    for at, letter in enumerate("123"):
        one = one.insert("a", 1 + at, letter)
        other = other.insert("b", 1 + at, letter.translate({49: "x", 50: "y", 51: "z"}))
    both = "".join(one.merge(other).value)

    assert both == "".join(other.merge(one).value)
    assert both in ("a123xyzc", "axyz123c")


def test_an_insert_behind_what_was_deleted_meanwhile_stays_at_its_place() -> None:
    """Why deleted elements leave tombstones."""
    text = Sequence().insert("a", 0, "a").insert("a", 1, "b").insert("a", 2, "c")
    deleted, inserted = text.delete(1), text.insert("b", 2, "!")

    assert deleted.merge(inserted).value == ["a", "!", "c"]


def test_a_text_that_is_typed_from_left_to_right_is_no_recursion() -> None:
    """Each letter is a child of the one before it: a branch as long as the text."""
    text = Sequence()
    for at in range(2_000):
        text = text.insert("a", at, at)
    assert text.value == list(range(2_000))


@pytest.mark.parametrize("index", [-1, 2])
def test_there_is_no_such_place(index: int) -> None:
    """Nothing is changed."""
    text = Sequence().insert("a", 0, "a")
    with pytest.raises(IndexError, match="from 0 to"):
        text.insert("a", index, "x")
    with pytest.raises(IndexError, match="from 0 to"):
        text.delete(index)
