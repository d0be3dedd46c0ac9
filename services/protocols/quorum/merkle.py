"""Hash trees over the keys of a node: which of them differ between two, in few messages.

Dynamo §4.7 (Merkle 1987). A key falls into one of `LEAVES` leaves by its hash; a leaf's hash covers
its keys and their states, an inner node's hash those of its `FANOUT` children. Two nodes compare
from the root down and look only below what differs; equal roots are one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b

FANOUT = 16
LEVELS = 2  # below the root
LEAVES = FANOUT**LEVELS

Path = tuple[int, ...]  # () is the root; one number a level


def leaf_of(key: str) -> Path:
    """The leaf that a key falls into."""
    number = int.from_bytes(blake2b(key.encode(), digest_size=4).digest(), "big") % LEAVES
    return number // FANOUT, number % FANOUT


class MerkleTree:
    """Of one node, for the keys that it shares with one other: hashes made when asked for.

    `changed` throws away what a key's change makes wrong, a path of `LEVELS` + 1 hashes.
    """

    def __init__(self, digest: Callable[[str], bytes]) -> None:
        self._digest = digest  # of a key's state
        self._keys: dict[Path, set[str]] = {}
        self._hashes: dict[Path, bytes] = {}
        self._taken: set[Path] = set()  # with keys below

    def changed(self, key: str) -> None:
        """The state of `key` is another now, or new."""
        leaf = leaf_of(key)
        self._keys.setdefault(leaf, set()).add(key)
        for level in range(LEVELS + 1):
            self._hashes.pop(leaf[:level], None)
            self._taken.add(leaf[:level])

    def keys(self, leaf: Path) -> Iterable[str]:
        """The keys of a leaf, sorted."""
        return sorted(self._keys.get(leaf, ()))

    def hash(self, path: Path) -> bytes:
        """8 bytes; of a subtree without keys, none."""
        if path not in self._taken:
            return b""
        found = self._hashes.get(path)
        if found is None:
            if len(path) == LEVELS:
                parts = [key.encode() + b"\0" + self._digest(key) for key in self.keys(path)]
            else:
                parts = [self.hash((*path, child)) for child in range(FANOUT)]
            found = blake2b(b"\0".join(parts), digest_size=8).digest()
            self._hashes[path] = found
        return found

    def children(self, path: Path) -> list[bytes]:
        """The hashes below an inner node."""
        return [self.hash((*path, child)) for child in range(FANOUT)]
