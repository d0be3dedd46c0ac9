"""Anti-entropy's messages: of a size that a link carries, whatever is in a leaf."""

from __future__ import annotations

from itertools import count, islice
from random import Random
from typing import Any

from services.protocols.gossip import Gossip
from services.protocols.gossip.messages import Rumours
from services.protocols.quorum.merkle import leaf_of
from services.protocols.quorum.messages import Differ
from services.protocols.quorum.synchronisation import BYTES_PER_MESSAGE, size_of

VALUE = b"v" * (64 << 10)  # the largest that a client may write
KEYS = 40


def gossip(node: str) -> Gossip:
    peer = "n2" if node == "n1" else "n1"
    return Gossip(node, (peer,), random=Random(node), anti_entropy_ticks=0)


def full() -> Gossip:
    """n1 with 2.5 MiB in one leaf, of which nobody has been told."""
    core, leaf = gossip("n1"), leaf_of("k0")
    names = (f"k{number}" for number in count())
    for request, key in enumerate(islice((name for name in names if leaf_of(name) == leaf), KEYS)):
        core.write(request, key, VALUE, stamp=1, context={})
    core.ready()
    return core


def sizes(messages: list[Any]) -> list[int]:
    return [sum(size_of(key, state) for key, state in message.states) for message in messages]


def test_a_leaf_with_more_than_a_message_carries_is_sent_in_pieces() -> None:
    """n2 has nothing. Each piece keeps to the limit, each key comes once, and n2 answers once."""
    cores = {"n1": full(), "n2": gossip("n2")}
    cores["n2"].ready()
    cores["n1"].synchronisation.begin("n2")
    sent: list[Any] = []
    while messages := [each for core in cores.values() for each in core.ready().messages]:
        messages = [each for each in messages if not isinstance(each, Rumours)]
        sent += messages
        for message in messages:
            cores[message.dst].step(message)

    pieces = [each for each in sent if isinstance(each, Differ) and each.src == "n1"]
    assert len(pieces) > 2
    assert max(sizes(pieces)) <= BYTES_PER_MESSAGE
    assert sum(len(each.states) for each in pieces) == KEYS
    assert sum(isinstance(each, Differ) and each.src == "n2" for each in sent) == 1
    assert cores["n2"].states == cores["n1"].states


def test_rumours_of_large_values_are_told_one_message_after_another() -> None:
    """No round says more than a link carries; what did not fit is told in the next ones."""
    core = full()
    told: set[str] = set()
    for _ in range(10):
        core.tick()
        rumours = [each for each in core.ready().messages if isinstance(each, Rumours)]
        assert all(size <= BYTES_PER_MESSAGE for size in sizes(rumours))
        told |= {key for each in rumours for key, _ in each.states}
    assert told == set(core.states)
