"""One hash for every placement: the same in every process, on every machine, in every release.

Python's own `hash` of a string differs from process to process: two clients would look for the
same key on different nodes.
"""

from __future__ import annotations

from hashlib import blake2b


def hash64(text: str) -> int:
    """0 … 2^64 - 1, evenly spread."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
