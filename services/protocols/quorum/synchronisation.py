"""Anti-entropy: two nodes compare their hash trees and exchange what differs (Dynamo §4.7)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Protocol

from services.protocols.core import NodeId
from services.protocols.quorum.data import canonical
from services.protocols.quorum.merkle import LEVELS, MerkleTree, Path
from services.protocols.quorum.messages import Compare, Differ
from services.protocols.quorum.versions import Siblings

BYTES_PER_MESSAGE = 1 << 20
ENTRY_BYTES = 1 << 10


class Replica(Protocol):
    """What has states to compare: a node of a store without a leader."""

    node: NodeId
    states: dict[str, Siblings]

    def homes(self, key: str) -> Sequence[NodeId]: ...
    def state(self, key: str) -> Siblings: ...
    def store(self, key: str, state: Siblings) -> Siblings: ...
    def send(self, message: Any) -> None: ...
    def tell(self, name: str, **fields: Any) -> None: ...


class Synchronisation:
    """The comparisons of one node with its peers: a tree for each, of the keys that both keep."""

    def __init__(self, core: Replica) -> None:
        self._core = core
        self._trees: dict[NodeId, MerkleTree] = {}

    def tree(self, peer: NodeId) -> MerkleTree:
        """Of what this node shares with `peer`."""
        if peer not in self._trees:
            tree = self._trees[peer] = MerkleTree(lambda key: digest(self._core.state(key)))
            for key in self._core.states:
                self._note(tree, peer, key)
        return self._trees[peer]

    def changed(self, key: str) -> None:
        """The state of a key is another now."""
        for peer, tree in self._trees.items():
            self._note(tree, peer, key)

    def _note(self, tree: MerkleTree, peer: NodeId, key: str) -> None:
        homes = self._core.homes(key)
        if peer in homes and self._core.node in homes:
            tree.changed(key)

    def begin(self, peer: NodeId) -> None:
        """Ask `peer` whether it has the same."""
        root: Path = ()
        self._core.send(Compare(self._core.node, peer, [(root, self.tree(peer).hash(root))]))

    def step(self, message: Any) -> None:
        """A message of a comparison."""
        if isinstance(message, Compare):
            self._compare(message)
        elif isinstance(message, Differ):
            self._exchange(message)

    def _compare(self, message: Compare) -> None:
        """Of what differs: one level further down, or at the leaves the states themselves."""
        core, tree = self._core, self.tree(message.src)
        differing = [tuple(path) for path, its in message.hashes if tree.hash(tuple(path)) != its]
        leaves = [path for path in differing if len(path) == LEVELS]
        below: list[tuple[Path, bytes]] = []
        for path in differing:
            if len(path) < LEVELS:
                below += [((*path, child), own) for child, own in enumerate(tree.children(path))]
        if below:
            core.send(Compare(core.node, message.src, below))
        self._send_states(message.src, leaves, answer=False)

    def _send_states(self, peer: NodeId, leaves: list[Path], *, answer: bool) -> None:
        """What is in these leaves, in messages of some BYTES_PER_MESSAGE: all of it in one would be
        more than a link carries when `peer` has lost its disk, and would never arrive; nor would a
        leaf in which somebody has put many large values. (A leaf is named with the last of it: so
        it is answered once.)"""
        core, tree = self._core, self.tree(peer)
        piece: list[Path] = []
        states: list[tuple[str, Siblings]] = []
        room = BYTES_PER_MESSAGE
        for leaf in leaves:
            for key in tree.keys(leaf):
                state = core.state(key)
                if states and room < size_of(key, state):
                    core.send(Differ(core.node, peer, piece, states, answer))
                    piece, states, room = [], [], BYTES_PER_MESSAGE
                states.append((key, state))
                room -= size_of(key, state)
            piece.append(leaf)
        if piece:
            core.send(Differ(core.node, peer, piece, states, answer))

    def _exchange(self, message: Differ) -> None:
        core = self._core
        if not message.answer:
            leaves: list[Path] = [tuple(leaf) for leaf in message.leaves]
            self._send_states(message.src, leaves, answer=True)
        before = sum(1 for key, state in message.states if core.state(key) != state)
        for key, state in message.states:
            if core.node in core.homes(key):
                core.store(key, state)
        if before:
            core.tell("anti_entropy", peer=message.src, keys=before)


def size_of(key: str, state: Siblings) -> int:
    """About how many bytes; an entry of a data type is taken for a long one."""
    plain = len(key) + sum(len(version.value or b"") for version in state.versions)
    return plain + ENTRY_BYTES * (state.data.entries if state.data else 0)


def digest(state: Siblings) -> bytes:
    """8 bytes that are equal for equal states."""
    versions = [(*version.dot, version.stamp, version.value) for version in state.versions]
    data = canonical(state.data) if state.data else None
    content = repr((sorted(state.context.items()), versions, data)).encode()
    return blake2b(content, digest_size=8).digest()
