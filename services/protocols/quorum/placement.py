"""Which nodes keep a key: highest random weight (Thaler & Ravishankar 1998).

Each node has a weight for each key, by hashing both; a key lives on the `replicas` heaviest, its
*homes*, and the rest, in order, stand in for those that cannot be reached. Dynamo's ring with
virtual nodes (§4.3) gives the same kind of list; this one needs no ring.
"""

from __future__ import annotations

from hashlib import blake2b


def preference(key: str, nodes: tuple[str, ...]) -> list[str]:
    """All nodes, those first that shall have `key`. The same at every node."""

    def weight(node: str) -> tuple[bytes, str]:
        return blake2b(f"{node}/{key}".encode(), digest_size=8).digest(), node

    return sorted(nodes, key=weight, reverse=True)
