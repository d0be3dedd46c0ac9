"""The table behind exactly-once writes; the state machine is a counter, so a duplicate shows."""

from __future__ import annotations

import doctest
import json
from random import Random

import pytest

from services.protocols import sessions
from services.protocols.sessions import KeyReused, SessionTable


class Counter:
    """A state machine in which a duplicate shows: every new command adds one."""

    def __init__(self, capacity: int) -> None:
        self.value = 0
        self.table = SessionTable(capacity)

    def apply(self, key: str, fingerprint: str = "add 1") -> int:
        reply = self.table.lookup(key, fingerprint)
        if reply is None:
            self.value += 1
            reply = [self.value]
            self.table.record(key, fingerprint, reply)
        return int(reply[0])


def test_the_docstring_runs() -> None:
    """The example in the class docstring is true."""
    assert doctest.testmod(sessions).failed == 0


def test_a_retry_is_answered_with_the_first_reply() -> None:
    """Raft §8: "if it receives a command whose serial number has already been executed, it
    responds immediately without re-executing the request".
    """
    counter = Counter(capacity=10)

    replies = [counter.apply("a"), counter.apply("b"), counter.apply("a")]

    assert replies == [1, 2, 1]
    assert counter.value == 2


def test_a_key_with_another_command_is_refused() -> None:
    """A reused key is the client's bug: told so, instead of being told the new command was done."""
    counter = Counter(capacity=10)
    counter.apply("a", "add 1")

    with pytest.raises(KeyReused, match="'a'") as refused:
        counter.apply("a", "add 2")

    assert refused.value.key == "a"
    assert counter.value == 1


def test_the_oldest_in_log_order_goes_first() -> None:
    """Lookups do not refresh a row: they may happen on one node alone."""
    table = SessionTable(capacity=2)
    table.record("a", "f", 1)
    table.record("b", "f", 2)
    assert table.lookup("a", "f") == 1

    table.record("c", "f", 3)

    assert table.lookup("a", "f") is None
    assert (table.lookup("b", "f"), table.lookup("c", "f")) == (2, 3)
    assert len(table) == 2


def test_what_eviction_loses() -> None:
    """A retry later than `capacity` newer keys is applied again: the window is the promise."""
    counter = Counter(capacity=2)

    for key in ("a", "b", "c", "a"):
        counter.apply(key)

    assert counter.value == 4


def test_a_restored_replica_skips_what_its_peers_skip() -> None:
    """Ongaro §6.3: the sessions are part of the state machine, hence of its snapshot."""
    counter = Counter(capacity=3)
    for key in ("a", "b", "c", "d"):
        counter.apply(key)

    restored = Counter(capacity=1000)  # what it was configured with does not count
    restored.value = counter.value
    restored.table = SessionTable.from_plain(json.loads(json.dumps(counter.table.to_plain())))
    for replica in (counter, restored):
        for key in ("d", "b", "e", "c", "b"):
            replica.apply(key)

    assert restored.value == counter.value
    assert restored.table.to_plain() == counter.table.to_plain()


def test_replicas_agree_wherever_they_were_restored() -> None:
    """Any log, cut by a snapshot anywhere: the same table and value as without the cut."""
    for seed in range(50):
        random = Random(seed)
        log = [f"k{random.randrange(12)}" for _ in range(60)]
        straight, restored = Counter(capacity=5), Counter(capacity=5)
        cut = random.randrange(60)
        for index, key in enumerate(log):
            straight.apply(key)
            restored.apply(key)
            if index == cut:
                restored.table = SessionTable.from_plain(restored.table.to_plain())

        assert restored.value == straight.value, f"seed {seed}"
        assert restored.table.to_plain() == straight.table.to_plain(), f"seed {seed}"


def test_bugs_of_the_caller_are_caught() -> None:
    """A record without a lookup, an unanswerable reply and no capacity at all are bugs."""
    table = SessionTable(capacity=2)
    table.record("a", "f", 1)

    with pytest.raises(AssertionError, match="applied twice"):
        table.record("a", "f", 1)
    with pytest.raises(AssertionError, match="not known"):
        table.record("b", "f", None)
    with pytest.raises(ValueError, match="at least 1"):
        SessionTable(capacity=0)
