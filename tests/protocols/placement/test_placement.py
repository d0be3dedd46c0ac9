"""Consistent hashing against modulo: what moves when a node goes, and how evenly keys lie.

Goal: the sentences of Karger et al. (1997) and of Dynamo (2007) that a lab relies on.
Method: 20,000 keys over a few nodes, the same on every machine (the hash has no seed).
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocols.placement import Modulo, Ring

KEYS = [f"user:{number}" for number in range(20_000)]
NODES = ("redis-1", "redis-2", "redis-3", "redis-4")
names = st.lists(st.text("abcdef-", min_size=1, max_size=8), min_size=2, max_size=8, unique=True)


def moved(before: Ring | Modulo, after: Ring | Modulo) -> float:
    return sum(before.nodes_for(key) != after.nodes_for(key) for key in KEYS) / len(KEYS)


def test_a_lost_node_moves_only_its_own_keys() -> None:
    """Karger §1: "monotonicity": no key moves between nodes that were there before and after."""
    before, after = Ring(NODES), Ring(NODES[:-1])

    for key in KEYS:
        (owner,) = before.nodes_for(key)
        assert owner == NODES[-1] or after.nodes_for(key) == (owner,)
    assert moved(before, after) == pytest.approx(1 / 4, abs=0.05)


def test_modulo_moves_nearly_everything() -> None:
    """`hash mod n` keeps a key in place for 1 key in n only."""
    assert moved(Modulo(NODES), Modulo(NODES[:-1])) == pytest.approx(3 / 4, abs=0.02)


def test_the_keys_of_a_lost_node_spread_over_all_that_are_left() -> None:
    """Dynamo §4.2: "the load handled by this node is evenly dispersed across the remaining"."""
    before, after = Ring(NODES), Ring(NODES[:-1])
    heirs = Counter(after.nodes_for(key)[0] for key in KEYS
                    if before.nodes_for(key) == (NODES[-1],))  # fmt: skip
    assert set(heirs) == set(NODES[:-1])
    assert max(heirs.values()) < 0.6 * sum(heirs.values())


def test_virtual_nodes_even_the_load_out() -> None:
    """With many points the busiest node has a fifth more than the average at most, here."""
    busiest = {}
    for points in (1, 128):
        ring = Ring(NODES, points=points)
        loads = Counter(ring.nodes_for(key)[0] for key in KEYS)
        busiest[points] = max(loads.values()) / (len(KEYS) / len(NODES))
    assert busiest[128] < 1.2 < busiest[1]


@given(names, st.text(max_size=30), st.integers(1, 10))
def test_replicas_are_distinct_nodes(nodes: list[str], key: str, count: int) -> None:
    """Dynamo §4.3: the preference list holds distinct physical nodes, the owner first."""
    for placement in (Ring(nodes, points=8), Modulo(nodes)):
        chosen = placement.nodes_for(key, count)
        assert len(set(chosen)) == len(chosen) == min(count, len(nodes))
        assert chosen[:1] == placement.nodes_for(key)


@given(names, st.text(max_size=30), st.randoms(use_true_random=False))
def test_the_ring_does_not_depend_on_the_order_of_its_nodes(
    nodes: list[str], key: str, random: object
) -> None:
    """Two clients that were told the nodes in different orders look in the same place."""
    shuffled = list(nodes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Ring(nodes, points=8).nodes_for(key, 2) == Ring(shuffled, points=8).nodes_for(key, 2)


def test_every_process_places_a_key_alike() -> None:
    """The hash is not Python's own, which differs from process to process."""
    program = ("from services.protocols.placement import Ring; "
               f"print(Ring({NODES}).nodes_for('a', 4))")  # fmt: skip
    said = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                       check=True, env={"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert said == {f"{Ring(NODES).nodes_for('a', 4)}\n"}


@pytest.mark.parametrize("nodes", [(), ("a", "a")])
def test_what_is_no_set_of_nodes(nodes: tuple[str, ...]) -> None:
    for kind in (Ring, Modulo):
        with pytest.raises(ValueError, match="each named once"):
            kind(nodes)
