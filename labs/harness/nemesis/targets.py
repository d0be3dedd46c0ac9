"""Targets (Jepsen's node specs): words for which nodes or members a fault is to hit."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from labs.harness.nemesis.shapes import Node, ShapeError, majority_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from random import Random

Target = str | list[str] | tuple[str, ...] | None

WORDS = ("one", "minority", "majority", "minority_third", "primaries", "followers", "all")


def pick(
    target: Target,
    nodes: Sequence[Node],
    random: Random,
    *,
    leading: Collection[Node] = (),
    members: Sequence[str] = (),
) -> list[Node]:
    """What `target` names, in the order of `nodes` and `members`. Raises ShapeError if nothing.

    None: a random non-empty subset of the nodes; a word of `WORDS`; a name, or several. `leading`
    are the nodes that believe they lead (for `primaries` and `followers`). Members (Redis, Kafka)
    are hit only when they are named: the words speak of replicas, and Redis is none of them.
    """
    chosen = set(_choose(target, nodes, random, leading, members))
    if not chosen:
        raise ShapeError(f"target {target!r} names nobody among {' '.join([*nodes, *members])}")
    return [each for each in (*nodes, *members) if each in chosen]


def _choose(
    target: Target,
    nodes: Sequence[Node],
    random: Random,
    leading: Collection[Node],
    members: Sequence[str],
) -> Collection[Node]:
    if target is None:
        return random.sample(nodes, random.randint(1, len(nodes))) if nodes else []
    if not isinstance(target, str):
        return _known(list(target), [*nodes, *members])
    if target == "primaries":
        return [node for node in nodes if node in leading]
    if target == "followers":
        return [node for node in nodes if node not in leading]
    sizes = {
        "one": min(1, len(nodes)),
        "minority": max(0, majority_of(len(nodes)) - 1) if nodes else 0,
        "majority": majority_of(len(nodes)) if nodes else 0,
        "minority_third": max(0, (len(nodes) - 1) // 3),
        "all": len(nodes),
    }
    if target in sizes:
        return random.sample(nodes, sizes[target])
    return _known([target], [*nodes, *members])


def _known(names: list[Node], nodes: Sequence[Node]) -> list[Node]:
    for name in names:
        if name not in nodes:
            near = get_close_matches(name, [*nodes, *WORDS], n=3, cutoff=0.3)
            raise ShapeError(f"no node {name!r}; near: {', '.join(near) or ' '.join(nodes)}")
    return names
