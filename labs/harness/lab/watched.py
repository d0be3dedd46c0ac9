"""What a monitoring saw of a variant, beside what happened: its curves, and when which alert fired.

A lab that has one leaves `watched.json` with its variant; times are those of the variant's history.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

NAME = "watched.json"


class Firing(msgspec.Struct):
    """An alert fired from `begin_s` to `end_s`."""

    alert: str
    begin_s: float
    end_s: float


class Watched(msgspec.Struct):
    """`curves`: [seconds, share] by name; a share is from 0 to 1."""

    title: str
    curves: dict[str, list[tuple[float, float]]]
    firings: list[Firing]

    def save(self, directory: Path) -> None:
        """As the file that the report reads."""
        (directory / NAME).write_bytes(msgspec.json.encode(self) + b"\n")


def read(directory: Path) -> Watched | None:
    """None when the variant was not watched. Raises OSError, msgspec.DecodeError."""
    path = directory / NAME
    return msgspec.json.decode(path.read_bytes(), type=Watched) if path.exists() else None
