"""Hash trees: equal roots mean equal keys and states, and a comparison finds what differs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.protocols.quorum.merkle import FANOUT, LEVELS, MerkleTree, leaf_of

Content = dict[str, bytes]
contents = st.dictionaries(st.text(max_size=4), st.binary(max_size=2), max_size=12)


def tree_of(content: Content) -> MerkleTree:
    tree = MerkleTree(lambda key: content.get(key, b""))
    for key in content:
        tree.changed(key)
    return tree


@given(contents, contents)
def test_roots_are_equal_if_and_only_if_contents_are(one: Content, other: Content) -> None:
    """Dynamo §4.7: "if the hash values of the root of two trees are equal, then the values of the
    leaf nodes in the tree are equal and the nodes require no synchronization"."""
    assert (tree_of(one).hash(()) == tree_of(other).hash(())) == (one == other)


@given(contents, st.text(max_size=4), st.binary(max_size=2))
def test_a_change_shows_on_its_path_and_nowhere_else(
    content: Content, key: str, state: bytes
) -> None:
    """Each level narrows the difference down to one child."""
    before, after = tree_of(content), tree_of({**content, key: state})
    leaf = leaf_of(key)
    changed = content.get(key) != state
    for level in range(LEVELS):
        for child in range(FANOUT):
            path = (*leaf[:level], child)
            on_its_way = path == leaf[: level + 1]
            assert (before.hash(path) != after.hash(path)) == (changed and on_its_way)


def test_hashes_follow_what_changes() -> None:
    """A tree that was asked before, and told of a change, is that of the new content."""
    content = {"a": b"1", "b": b"2"}
    tree = tree_of(content)
    tree.hash(())
    content["b"] = b"3"
    tree.changed("b")
    assert tree.hash(()) == tree_of(content).hash(())
