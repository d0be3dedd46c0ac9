"""Planted bugs: mistakes that people make in Viewstamped Replication."""

from __future__ import annotations

from dataclasses import dataclass

from services.protocols.viewstamped import Viewstamped


@dataclass(frozen=True, slots=True)
class Bug:
    """`seeds` is within how many seeds (from 0 on) the simulation must find it."""

    name: str
    core: type[Viewstamped] = Viewstamped
    persist_before_send: bool = True
    clock_drift: float = 0.10
    seeds: int = 0


CORRECT = Bug("none")
BUGS: dict[str, Bug] = {}
