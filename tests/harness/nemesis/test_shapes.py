"""Every partition shape at every size from 1 to 9, and over many seeds: what its name promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from random import Random

import pytest

from labs.harness.links import Link
from labs.harness.nemesis import shapes
from labs.harness.nemesis.shapes import Grudge, ShapeError, cut_links, majority_of, minority_with
from labs.harness.nemesis.targets import pick

SIZES = range(1, 10)
SEEDS = range(25)
LEAST = {
    "one": 2,
    "halves": 2,
    "random_halves": 2,
    "majority": 3,
    "minority_third": 4,
    "bridge": 3,
    "majorities_ring": 4,
}


def cluster(size: int) -> list[str]:
    return [f"n{i}" for i in range(1, size + 1)]


def sees(grudge: Grudge, nodes: list[str]) -> dict[str, frozenset[str]]:
    """Whom each node can talk with in both directions, itself included."""
    cut = set(cut_links(grudge))
    return {
        node: frozenset(o for o in nodes if Link(node, o) not in cut and Link(o, node) not in cut)
        for node in nodes
    }


def components(grudge: Grudge, nodes: list[str]) -> list[frozenset[str]]:
    """The groups of a clean partition, the smaller first."""
    groups = set(sees(grudge, nodes).values())
    assert sum(map(len, groups)) == len(nodes), "not clean"
    return sorted(groups, key=len)


def drawn(name: str) -> Iterator[tuple[list[str], Grudge]]:
    """The shape at all sizes that it allows, with all seeds."""
    for size in SIZES:
        for seed in SEEDS:
            if size >= LEAST[name]:
                nodes = cluster(size)
                yield nodes, shapes.SHAPES[name](nodes, Random(seed))


def is_symmetric(grudge: Grudge) -> bool:
    return all(node in grudge[src] for node, refused in grudge.items() for src in refused)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_every_shape_cuts_something_between_nodes_it_was_given(name: str) -> None:
    """A grudge names given nodes only, never a node itself, and is not empty; chance is seeded."""
    for nodes, grudge in drawn(name):
        assert grudge
        assert shapes.check_grudge(grudge, nodes) == grudge
        assert all(grudge.values())
        assert is_symmetric(grudge)
    again = shapes.SHAPES[name](cluster(7), Random(5))
    assert again == shapes.SHAPES[name](cluster(7), Random(5))


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_every_shape_refuses_a_cluster_too_small_for_it(name: str) -> None:
    """Degenerate shapes are refused, with a message that says what is needed."""
    for size in range(LEAST[name]):
        with pytest.raises(ShapeError, match=name):
            shapes.SHAPES[name](cluster(size), Random(1))
    with pytest.raises(ShapeError, match="twice"):
        shapes.SHAPES[name](["n1", "n2", "n3", "n4", "n1"], Random(1))


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_asymmetric_keeps_one_direction_of_every_pair(name: str) -> None:
    """`asymmetric`: A may open requests to B, B may not open requests to A."""
    for size in range(LEAST[name], 10):
        nodes = cluster(size)
        both = shapes.SHAPES[name](nodes, Random(3))
        cut = set(cut_links(shapes.SHAPES[name](nodes, Random(3), symmetry="asymmetric")))
        for src, dst in cut_links(both):
            assert (Link(src, dst) in cut) != (Link(dst, src) in cut)
        assert len(cut) * 2 == len(cut_links(both))


def test_asymmetric_lets_the_side_named_first_speak() -> None:
    """The first group may open requests to the second, which may not open any back."""
    grudge = shapes.complete_grudge([["n1"], ["n2", "n3"]], symmetry="asymmetric")

    assert cut_links(grudge) == [Link("n2", "n1"), Link("n3", "n1")]
    with pytest.raises(ShapeError, match="symmetry"):
        shapes.complete_grudge([["n1"], ["n2"]], symmetry="oneway")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", range(3, 10))
def test_the_largest_minority_with_a_node_leaves_a_majority(size: int) -> None:
    """Of an even number, too: halves would leave nobody to go on."""
    nodes = cluster(size)
    small, large = minority_with("n2", nodes)

    assert small[0] == "n2"
    assert sorted([*small, *large]) == nodes
    assert len(large) == majority_of(size)


def test_one_isolates_one_node() -> None:
    """`one`: isolates one node; every node is drawn sooner or later."""
    loners = set()
    for nodes, grudge in drawn("one"):
        first, second = components(grudge, nodes)
        assert (len(first), len(second)) == (1, len(nodes) - 1)
        loners |= first if len(nodes) == 9 else set()
    assert len(loners) > 5


@pytest.mark.parametrize("name", ["halves", "random_halves"])
def test_halves_puts_the_smaller_half_first(name: str) -> None:
    """`halves`: the smaller half first."""
    for nodes, grudge in drawn(name):
        first, second = components(grudge, nodes)
        assert (len(first), len(second)) == (len(nodes) // 2, len(nodes) - len(nodes) // 2)
        if name == "halves":
            assert frozenset(nodes[: len(first)]) in (first, second)


def test_majority_leaves_exactly_one_majority() -> None:
    """`majority`: a clean majority/minority split, also of an even number of nodes."""
    for nodes, grudge in drawn("majority"):
        first, second = components(grudge, nodes)
        assert len(second) == majority_of(len(nodes))
        assert 0 < len(first) < majority_of(len(nodes))


def test_minority_third_cuts_fewer_than_a_third() -> None:
    """`minority_third`: fewer than a third; one of 4, 5 and 6, two of 7."""
    for nodes, grudge in drawn("minority_third"):
        first, second = components(grudge, nodes)
        assert 0 < 3 * len(first) < len(nodes)
        assert len(first) == (len(nodes) - 1) // 3
        assert len(second) == len(nodes) - len(first)


def test_primaries_isolates_every_node_that_believes_it_leads() -> None:
    """`primaries`: each primary alone, the others together; refused when nobody leads."""
    for size in range(2, 10):
        nodes = cluster(size)
        for count in range(1, size + 1):
            leading = Random(size).sample(nodes, count)
            view = sees(shapes.primaries(nodes, leading), nodes)
            rest = frozenset(nodes) - frozenset(leading)
            assert all(view[node] == {node} for node in leading)
            assert all(view[node] == rest for node in rest)
    for leading in ([], ["n9"]):
        with pytest.raises(ShapeError, match="primaries"):
            shapes.primaries(cluster(3), leading)
    with pytest.raises(ShapeError):
        shapes.primaries(["n1"], ["n1"])


def test_bridge_joins_two_groups_by_one_node() -> None:
    """`bridge`: two groups joined by one node, which alone sees all."""
    for nodes, grudge in drawn("bridge"):
        view = sees(grudge, nodes)
        [joining] = [node for node in nodes if len(view[node]) == len(nodes)]
        groups = {view[node] for node in nodes if node != joining}
        assert len(groups) == 2
        first, second = groups
        assert first & second == {joining}
        assert first | second == set(nodes)
        # 5 nodes: everyone sees a majority; exactly three different ones.
        if len(nodes) == 5:
            assert all(len(each) >= 3 for each in view.values())
            assert len(set(view.values())) == 3


def test_majorities_ring_shows_everyone_another_majority() -> None:
    """`majorities_ring`: everyone sees a majority, no two the same, no quorum fully connected."""
    for nodes, grudge in drawn("majorities_ring"):
        view = sees(grudge, nodes)
        least = majority_of(len(nodes))
        assert all(len(each) >= least for each in view.values())
        assert len(set(view.values())) == len(nodes)
        assert all(len(each) < len(nodes) for each in view.values())
        for quorum in combinations(nodes, least):
            assert not all(set(quorum) <= view[node] for node in quorum), quorum


def test_majorities_ring_of_a_large_cluster() -> None:
    """The greedy form is quick and right for 25 nodes too."""
    nodes = cluster(25)
    view = sees(shapes.majorities_ring(nodes, Random(1)), nodes)

    assert all(len(each) >= 13 for each in view.values())
    assert len(set(view.values())) == 25


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: shapes.complete_grudge([["n1", "n2"]]), "two groups"),
        (lambda: shapes.complete_grudge([["n1", "n2"], []]), "empty"),
        (lambda: shapes.complete_grudge([["n1", "n2"], ["n2"]]), "twice"),
        (lambda: shapes.check_grudge({}, ["n1"]), "nothing"),
        (lambda: shapes.check_grudge({"n1": set()}, ["n1"]), "nothing"),
        (lambda: shapes.check_grudge({"n1": {"n1"}}, ["n1"]), "itself"),
        (lambda: shapes.check_grudge({"n1": {"n7"}}, ["n1"]), "n7"),
    ],
)
def test_custom_grudges_are_checked(make: Callable[[], Grudge], says: str) -> None:
    """`custom`: an explicit grudge, refused when it cuts nothing or names strangers."""
    with pytest.raises(ShapeError, match=says):
        make()


def test_a_client_group_sees_what_the_nodes_beside_it_see() -> None:
    """Client groups stand on a side: cut off from what those they stand beside are cut off from."""
    grudge = shapes.complete_grudge([["n1", "n2"], ["n3", "n4", "n5"]])

    placed = shapes.place_clients(grudge, {"c1": "n1", "c2": ["n1", "n3"]})

    cut = cut_links(placed)
    assert [dst for src, dst in cut if src == "c1"] == ["n3", "n4", "n5"]
    assert [dst for src, dst in cut if src == "c2"] == []
    assert set(cut_links(grudge)) < set(cut)
    assert shapes.describe(placed, cluster(5), ["c1"]) == "n1 n2 c1 | n3 n4 n5"
    with pytest.raises(ShapeError, match="beside no node"):
        shapes.place_clients(grudge, {"c1": []})


def test_a_client_group_on_the_far_side_of_a_one_way_cut() -> None:
    """It opens requests as its node may: under `asymmetric` only the second side is cut off."""
    grudge = shapes.complete_grudge([["n1"], ["n2", "n3"]], symmetry="asymmetric")

    cut = cut_links(shapes.place_clients(grudge, {"c1": "n1", "c2": "n2"}))

    assert Link("c2", "n1") in cut
    assert not [link for link in cut if link.src == "c1"]
    assert shapes.describe(grudge, cluster(3)) == "n2↛n1, n3↛n1"


@pytest.mark.parametrize(
    ("target", "sizes"),
    [
        ("one", [1] * 9),
        ("minority", [0, 1, 1, 2, 2, 3, 3, 4, 4]),
        ("majority", [1, 2, 2, 3, 3, 4, 4, 5, 5]),
        ("minority_third", [0, 0, 0, 1, 1, 1, 2, 2, 2]),
        ("primaries", [1, 2, 2, 2, 2, 2, 2, 2, 2]),
        ("followers", [0, 0, 1, 2, 3, 4, 5, 6, 7]),
        ("all", list(SIZES)),
    ],
)
def test_targets(target: str, sizes: list[int]) -> None:
    """Node specs in Jepsen's words; one that names nobody is refused."""
    for size in SIZES:
        nodes = cluster(size)
        for seed in SEEDS:
            wanted = sizes[size - 1]
            if wanted == 0:
                with pytest.raises(ShapeError, match=target):
                    pick(target, nodes, Random(seed), leading=["n1", "n2"])
                continue
            found = pick(target, nodes, Random(seed), leading=["n1", "n2"])
            assert len(set(found)) == wanted
            assert found == [node for node in nodes if node in found]


@pytest.mark.parametrize("count", [5, 7, 9])
def test_hub_is_the_only_one_that_a_majority_hears_and_is_heard_by(count: int) -> None:
    """`hub`: with `gone` dead no other node has a majority both ways; each voter hears of as many
    others as make a majority with it, which Viewstamped Replication (§4.2) asks for."""
    gone, center, *rest = cluster(count)
    voters, others = rest[: count // 2], rest[count // 2 :]
    grudge = shapes.hub(center, voters, others, gone)

    def hears(node: str) -> set[str]:
        return {other for other in [center, *rest] if other not in grudge.get(node, frozenset())}

    both_ways = {
        node: {other for other in hears(node) if node in hears(other)} for node in [center, *rest]
    }
    assert both_ways[center] == {center, *rest}
    assert all(len(both_ways[node]) < majority_of(count) for node in rest)
    assert all(len(hears(voter)) >= majority_of(count) - 1 for voter in voters)
    assert gone in grudge[center], "what it had sent does not arrive after its death"
    with pytest.raises(ShapeError, match="named twice"):
        shapes.hub(center, [*voters, center], others, gone)


def test_targets_by_name_and_by_chance() -> None:
    """Explicit names in the cluster's order; None is a random non-empty subset."""
    nodes = cluster(5)

    assert pick("n2", nodes, Random(1)) == ["n2"]
    assert pick(["n4", "n2"], nodes, Random(1)) == ["n2", "n4"]
    subsets = {tuple(pick(None, nodes, Random(seed))) for seed in range(500)}
    assert len(subsets) == 31  # every non-empty subset
    with pytest.raises(ShapeError, match="near: primaries"):
        pick("primarys", nodes, Random(1))
    with pytest.raises(ShapeError, match="names nobody"):
        pick([], nodes, Random(1))
