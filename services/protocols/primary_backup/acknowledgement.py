"""How many backups must have an entry on their disks before a client hears that it is written."""

from __future__ import annotations

ACKNOWLEDGEMENTS = ("asynchronous", "semi_synchronous", "synchronous")


def backups_required(acknowledgement: str, peers: int) -> int:
    """Of `peers` backups. Raises ValueError: one line that says what is wrong."""
    if acknowledgement not in ACKNOWLEDGEMENTS:
        raise ValueError(f"acknowledgement {acknowledgement!r} is none of {ACKNOWLEDGEMENTS}")
    if acknowledgement == "semi_synchronous" and not peers:
        raise ValueError("semi_synchronous acknowledgement needs a backup")
    return {"asynchronous": 0, "semi_synchronous": 1, "synchronous": peers}[acknowledgement]
