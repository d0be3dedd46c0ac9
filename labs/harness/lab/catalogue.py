"""The labs that are here: every module `labs/<name>.py` with a `LAB`."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labs.harness.lab.definition import Lab

LABS = Path(__file__).resolve().parents[2]


class Unknown(ValueError):
    """A name or value that is not one of the allowed; the message names the nearest."""

    def __init__(self, what: str, value: str, allowed: list[str]) -> None:
        near = get_close_matches(value, allowed, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        super().__init__(f"{what} {value!r} is not known: {hint}allowed: {', '.join(allowed)}")


def names() -> list[str]:
    return sorted(
        path.stem.replace("_", "-") for path in LABS.glob("*.py") if not path.stem.startswith("_")
    )


def require(name: str) -> None:
    """Raises Unknown, which names the nearest, unless there is a lab of that name."""
    if name not in names():
        raise Unknown("lab", name, names())


def find(name: str) -> Lab:
    """The lab of that name (its module is imported now, which is not cheap)."""
    require(name)
    lab: Lab = import_module(f"labs.{name.replace('-', '_')}").LAB
    return lab


def member_kinds(name: str, nodes: int = 5) -> set[str]:
    """What a lab needs beside the project's own services: keys of `members.KINDS`."""
    clusters = [variant.cluster(nodes) for variant in find(name).variants]
    return {member.kind for cluster in clusters for member in cluster.members}
