"""Planted bugs: mistakes that people make in Zab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.protocols.zab import Zab
from tests.simulation.cluster import Machine


@dataclass(frozen=True, slots=True)
class Bug:
    """`seeds` is within how many seeds (from 0 on) the simulation must find it."""

    name: str
    zab: type[Zab] = Zab
    persist_before_send: bool = True
    machine: type[Machine] | None = None
    seeds: int = 0


CORRECT = Bug("none")
BUGS: dict[str, Any] = {}
