"""Partition shapes: pure functions from nodes to a *grudge*, in Jepsen's words.

A grudge maps a node to the nodes it refuses to hear from: `n1 in grudge["n3"]` cuts the link
n1→n3, that is the requests that n1 opens to n3 and their responses. The link n3→n1 is another one.

Over TCP there is no "packets flow one way": it would cut both (chaos-mesh#4477). So `asymmetric`
means: the side named first may open requests to the other side, which may not open any back.

A shape that would cut nothing, or not what its name says, for the given number of nodes is
refused: a fault without effect makes a passing run meaningless.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Literal, Protocol

from labs.harness.links.fault import Link

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from random import Random

Node = str
Grudge = dict[Node, frozenset[Node]]
Symmetry = Literal["symmetric", "asymmetric"]

WINDOW_NODES = 5  # up to here a ring by sliding windows is symmetric; beyond, the greedy form
GREEDY_TRIALS = 200
CLIQUE_NODES = 12  # beyond, looking at every possible quorum takes too long


class ShapeError(ValueError):
    """This shape, or target, is empty or degenerate for this cluster."""


class Shape(Protocol):
    """What all shapes by chance look like."""

    def __call__(
        self, nodes: Sequence[Node], random: Random, *, symmetry: Symmetry = "symmetric"
    ) -> Grudge: ...


def majority_of(count: int) -> int:
    """How many of `count` nodes are the smallest majority."""
    return count // 2 + 1


def minority_with(first: Node, nodes: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The largest minority that `first` can be in, with `first` ahead, and the majority."""
    others = [node for node in nodes if node != first]
    beside = max(0, len(others) // 2 - 1)
    return [first, *others[:beside]], others[beside:]


def complete_grudge(
    groups: Sequence[Collection[Node]], *, symmetry: Symmetry = "symmetric"
) -> Grudge:
    """Nobody hears anybody of another group (`custom`). Raises ShapeError.

    `asymmetric`: a group may open requests to all groups after it, and hears none of them.
    """
    members = [node for group in groups for node in group]
    _check_nodes(members, "a partition into groups", 2)
    if len(groups) < 2 or not all(groups):
        raise ShapeError("a partition needs two groups at least, and none may be empty")
    everyone = frozenset(members)
    grudge = {node: everyone - frozenset(group) for group in groups for node in group}
    return _with_symmetry(grudge, members, symmetry)


def one(nodes: Sequence[Node], random: Random, *, symmetry: Symmetry = "symmetric") -> Grudge:
    """Isolates one node."""
    _check_nodes(nodes, "one", 2)
    loner = random.choice(nodes)
    return _isolate([loner], nodes, symmetry)


def halves(nodes: Sequence[Node], random: Random, *, symmetry: Symmetry = "symmetric") -> Grudge:
    """The first half from the second, in the given order; the smaller half first."""
    _check_nodes(nodes, "halves", 2)
    middle = len(nodes) // 2
    return complete_grudge([nodes[:middle], nodes[middle:]], symmetry=symmetry)


def random_halves(
    nodes: Sequence[Node], random: Random, *, symmetry: Symmetry = "symmetric"
) -> Grudge:
    """As `halves`, in random order."""
    _check_nodes(nodes, "random_halves", 2)
    return halves(_shuffled(nodes, random), random, symmetry=symmetry)


def majority(nodes: Sequence[Node], random: Random, *, symmetry: Symmetry = "symmetric") -> Grudge:
    """A majority, just, on one side, the rest on the other; the minority is named first."""
    _check_nodes(nodes, "majority", 3)
    minority = len(nodes) - majority_of(len(nodes))
    return _isolate(_shuffled(nodes, random)[:minority], nodes, symmetry, together=True)


def minority_third(
    nodes: Sequence[Node], random: Random, *, symmetry: Symmetry = "symmetric"
) -> Grudge:
    """Cuts fewer than a third off (what Byzantine agreement survives): none of three nodes."""
    _check_nodes(nodes, "minority_third", 4)
    few = (len(nodes) - 1) // 3
    return _isolate(_shuffled(nodes, random)[:few], nodes, symmetry, together=True)


def primaries(
    nodes: Sequence[Node], leading: Collection[Node], *, symmetry: Symmetry = "symmetric"
) -> Grudge:
    """Isolates every node that believes it leads, each for itself; the others stay together."""
    _check_nodes(nodes, "primaries", 2)
    if not leading:
        raise ShapeError("primaries: no node believes it leads, there is nobody to isolate")
    if unknown := sorted(set(leading) - set(nodes)):
        raise ShapeError(f"primaries: no such node: {', '.join(unknown)}")
    return _isolate([node for node in nodes if node in leading], nodes, symmetry)


def bridge(nodes: Sequence[Node], random: Random, *, symmetry: Symmetry = "symmetric") -> Grudge:
    """Two halves that do not hear each other, and one node of the larger that hears all."""
    _check_nodes(nodes, "bridge", 3)
    order = _shuffled(nodes, random)
    middle = len(order) // 2
    joining = order[middle]
    apart = complete_grudge([order[:middle], order[middle:]])
    grudge = {node: refused - {joining} for node, refused in apart.items() if node != joining}
    return _with_symmetry(grudge, order, symmetry)


def majorities_ring(
    nodes: Sequence[Node], random: Random, *, symmetry: Symmetry = "symmetric"
) -> Grudge:
    """Everyone sees a majority, no two the same one, and no quorum is fully connected.

    Three nodes have no such ring: each would hear one neighbour only, over TCP nobody anybody.
    """
    _check_nodes(nodes, "majorities_ring", 4)
    order = _shuffled(nodes, random)
    if len(nodes) <= WINDOW_NODES:
        return _with_symmetry(_window_ring(order), order, symmetry)
    for _ in range(GREEDY_TRIALS):
        grudge = _greedy_ring(order, random)
        if _is_majorities_ring(grudge, order):
            return _with_symmetry(grudge, order, symmetry)
        order = _shuffled(nodes, random)
    raise ShapeError(f"majorities_ring: none found for {len(nodes)} nodes")


def hub(center: Node, voters: Sequence[Node], others: Sequence[Node], gone: Node) -> Grudge:
    """With `gone` dead, `center` alone hears all who live and is heard by all of them.

    `voters` hear all but one another, `others` nobody but `center`. With as many voters as it
    takes for a majority with `center`, no other node can gather one; yet each voter hears of two
    more that miss their leader, which Viewstamped Replication asks for before it moves on. What
    `gone` has sent, and a cut still holds, does not reach `center` and `others` after its death.
    """
    nodes = [center, *voters, *others, gone]
    _check_nodes(nodes, "hub", 4)
    apart = {node: frozenset(voters) - {node} for node in voters}
    deaf = {node: frozenset(nodes) - {node, center} for node in others}
    return check_grudge(apart | deaf | {center: {gone}}, nodes)


SHAPES: dict[str, Shape] = {
    "one": one,
    "halves": halves,
    "random_halves": random_halves,
    "majority": majority,
    "minority_third": minority_third,
    "bridge": bridge,
    "majorities_ring": majorities_ring,
}
"""Those that need chance alone; beside them `primaries` and `complete_grudge` (`custom`)."""


def cut_links(grudge: Mapping[Node, Collection[Node]]) -> list[Link]:
    """The links that `grudge` cuts, sorted."""
    return sorted(Link(src, dst) for dst, refused in grudge.items() for src in refused)


def check_grudge(grudge: Mapping[Node, Collection[Node]], nodes: Collection[Node]) -> Grudge:
    """An explicit grudge (`custom`), checked. Raises ShapeError."""
    named = {*grudge, *(src for refused in grudge.values() for src in refused)}
    if unknown := sorted(named - set(nodes)):
        raise ShapeError(f"no such node: {', '.join(unknown)}")
    if selves := sorted(node for node, refused in grudge.items() if node in refused):
        raise ShapeError(f"a node always hears itself: {', '.join(selves)}")
    if not any(grudge.values()):
        raise ShapeError("this grudge cuts nothing")
    return {node: frozenset(refused) for node, refused in grudge.items() if refused}


def place_clients(grudge: Grudge, places: Mapping[str, Node | Collection[Node]]) -> Grudge:
    """Put client groups on sides: each reaches what a node it stands beside reaches.

    `places` maps a client group to a node, or to several: then any one that reaches is enough.
    A group reaches the nodes it stands beside. Groups not named reach everyone.
    """
    placed = dict(grudge)
    for client, place in places.items():
        beside = {place} if isinstance(place, str) else set(place)
        if not beside:
            raise ShapeError(f"{client} stands beside no node")
        for node, refused in grudge.items():
            if node not in beside and beside <= refused:
                placed[node] = placed[node] | {client}
    return placed


def describe(
    grudge: Mapping[Node, Collection[Node]],
    nodes: Sequence[Node],
    clients: Sequence[str] = (),
    links: Collection[Link] | None = None,
) -> str:
    """`n1 c1 | n2 n3 n4 n5` when the groups are cut off cleanly, else the cut links by source.

    A client group stands with the nodes that it reaches. `links`: those there are, where not every
    node has one to every other (a member, such as Redis, opens none).
    """
    cut = {link for link in cut_links(grudge) if links is None or link in links}
    groups: list[list[str]] = []
    for member in [*nodes, *clients]:
        for group in groups:
            if not any(Link(member, each) in cut or Link(each, member) in cut for each in group):
                group.append(member)
                break
        else:
            groups.append([member])
    between = {
        Link(src, dst)
        for mine in groups
        for other in groups
        if other is not mine
        for src in mine
        for dst in other
        if dst in nodes and (links is None or Link(src, dst) in links)
    }
    if between == cut:
        return " | ".join(" ".join(group) for group in groups)
    refused = {src: [dst for dst in nodes if Link(src, dst) in cut] for src in [*nodes, *clients]}
    return ", ".join(f"{src}↛{' '.join(by)}" for src, by in refused.items() if by)


def _check_nodes(nodes: Sequence[Node], shape: str, least: int) -> None:
    if len(set(nodes)) < len(nodes):
        raise ShapeError(f"{shape}: a node is named twice: {' '.join(nodes)}")
    if len(nodes) < least:
        raise ShapeError(f"{shape} needs {least} nodes at least, here are {len(nodes)}")


def _shuffled(nodes: Iterable[Node], random: Random) -> list[Node]:
    order = list(nodes)
    random.shuffle(order)
    return order


def _isolate(
    apart: Sequence[Node], nodes: Sequence[Node], symmetry: Symmetry, *, together: bool = False
) -> Grudge:
    """`apart` from the rest; with `together` they still hear each other."""
    rest = [node for node in nodes if node not in apart]
    groups = [list(apart)] if together else [[node] for node in apart]
    return complete_grudge([*groups, rest] if rest else groups, symmetry=symmetry)


def _with_symmetry(grudge: Grudge, order: Sequence[Node], symmetry: Symmetry) -> Grudge:
    """`asymmetric`: of two nodes that refuse each other, the later one hears the earlier one."""
    if symmetry == "symmetric":
        kept = grudge
    elif symmetry == "asymmetric":
        rank = {node: place for place, node in enumerate(order)}
        kept = {
            node: frozenset(
                src
                for src in refused
                if node not in grudge.get(src, frozenset()) or rank[node] < rank[src]
            )
            for node, refused in grudge.items()
        }
    else:
        raise ShapeError(f"unknown symmetry {symmetry!r}; one of symmetric, asymmetric")
    return {node: refused for node, refused in kept.items() if refused}


def _window_ring(order: Sequence[Node]) -> Grudge:
    """Each node hears the window of a majority that it is the centre of."""
    count, size = len(order), majority_of(len(order))
    grudge = {}
    for start in range(count):
        window = [order[(start + step) % count] for step in range(size)]
        grudge[window[size // 2]] = frozenset(order) - frozenset(window)
    return grudge


def _greedy_ring(order: Sequence[Node], random: Random) -> Grudge:
    """Join the two loneliest nodes until everyone sees a majority (Jepsen's stochastic form)."""
    hears = {node: {node} for node in order}
    while True:
        loneliest = min(hears, key=lambda node: len(hears[node]))
        if len(hears[loneliest]) >= majority_of(len(order)):
            break
        strangers = [node for node in _shuffled(order, random) if node not in hears[loneliest]]
        friend = min(strangers, key=lambda node: len(hears[node]))
        hears[loneliest].add(friend)
        hears[friend].add(loneliest)
    return {node: frozenset(order) - heard for node, heard in hears.items()}


def _is_majorities_ring(grudge: Grudge, nodes: Sequence[Node]) -> bool:
    sees = {node: frozenset(nodes) - grudge[node] for node in nodes}
    if len(set(sees.values())) < len(nodes) or not all(grudge.values()):
        return False
    if len(nodes) > CLIQUE_NODES:
        return True
    quorums = combinations(nodes, majority_of(len(nodes)))
    return not any(all(frozenset(quorum) <= sees[node] for node in quorum) for quorum in quorums)
