"""The replicated state machine: deterministic, exactly once, restored whole."""

from __future__ import annotations

import random

from services.kv.state_machine import Command, KeyValueStore, Reply, encode_command

SEED = 4711


def apply(store: KeyValueStore, index: int, *args: object, **kwargs: object) -> Reply:
    return store.apply(index, encode_command(Command(*args, **kwargs)))  # type: ignore[arg-type]


def test_exactly_once() -> None:
    """The second entry with a known key changes nothing and gets the first one's reply."""
    store = KeyValueStore()
    first = apply(store, 1, "a", b"1", idempotency_key="k")
    apply(store, 2, "a", b"2")

    assert apply(store, 3, "a", b"1", idempotency_key="k") == first == Reply("ok", 1)
    assert store.get("a") == (b"2", 2)
    assert apply(store, 4, "b", b"1", idempotency_key="k").outcome == "key_reused"


def test_a_failed_condition_is_remembered_as_well() -> None:
    """A retry of what was refused is refused alike, whatever has changed in between."""
    store = KeyValueStore()
    apply(store, 1, "a", b"1")
    refused = apply(store, 2, "a", b"2", if_none_match=True, idempotency_key="k")
    apply(store, 3, "a", None)

    assert refused == Reply("precondition_failed", 1, b"1")
    assert apply(store, 4, "a", b"2", if_none_match=True, idempotency_key="k") == refused


def test_rubbish_in_the_log() -> None:
    """An entry that is no command has the same end on every node, and it is no exception."""
    store = KeyValueStore()
    for command in (
        b"\xc1",
        b"x",
        b"\x95\xa1\xff\xc0\xc0\xc2\xc0",
        encode_command(Command("a", b"1"))[:-2],
    ):
        assert store.apply(1, command).outcome == "bad_command"
    assert len(store) == 0


def test_replicas_agree() -> None:
    """Replicas agree byte for byte, one of them restored from a snapshot half-way."""
    chance = random.Random(SEED)
    commands = []
    for _ in range(2_000):
        key, value = f"k{chance.randrange(20)}", chance.choice([None, b"1", b"2"])
        match = chance.choice([None, None, -1, chance.randrange(2_000)])
        retry = chance.choice([None, f"i{chance.randrange(400)}"])
        absent = match is None and chance.random() < 0.2
        commands.append(encode_command(Command(key, value, match, absent, retry)))
    first, second = KeyValueStore(sessions=50), KeyValueStore(sessions=50)
    replies = [first.apply(i, command) for i, command in enumerate(commands, 1)]
    for i, command in enumerate(commands, 1):
        if i == 1_000:
            image = second.snapshot()
            second = KeyValueStore()
            second.restore(image)
        assert second.apply(i, command) == replies[i - 1], f"SEED={SEED}, index {i}"

    assert first.snapshot() == second.snapshot()
    assert {reply.outcome for reply in replies} == {
        "ok",
        "not_found",
        "precondition_failed",
        "key_reused",
    }


def test_restore_nothing() -> None:
    """No bytes stand for the state before the first entry."""
    store = KeyValueStore()
    apply(store, 1, "a", b"1", idempotency_key="k")
    store.restore(b"")

    assert store.get("a") is None
    assert store.snapshot() == KeyValueStore().snapshot()


def test_equal_states_have_equal_digests() -> None:
    """Whatever way led there: by writes that were undone, or from a snapshot."""
    straight, winding, restored = KeyValueStore(), KeyValueStore(), KeyValueStore()
    empty = straight.digest()
    apply(straight, 5, "a", b"1")
    apply(winding, 1, "a", b"0")
    apply(winding, 2, "b", b"2")
    apply(winding, 3, "b", None)
    apply(winding, 4, "b", None)
    apply(winding, 5, "a", b"1")
    restored.restore(winding.snapshot())

    assert straight.digest() == winding.digest() == restored.digest() != empty
    restored.restore(b"")
    assert restored.digest() == empty


def test_other_states_have_other_digests() -> None:
    """Another value, version or key, values exchanged, or cut elsewhere."""
    digests = set()
    for items in (
        [("a", b"1", 1)],
        [("a", b"2", 1)],
        [("a", b"1", 2)],
        [("b", b"1", 1)],
        [("a1", b"", 1)],
        [("a", b"1", 1), ("b", b"2", 2)],
        [("a", b"2", 1), ("b", b"1", 2)],
    ):
        store = KeyValueStore()
        for key, value, index in items:
            apply(store, index, key, value)
        digests.add(store.digest())

    assert len(digests) == 7
