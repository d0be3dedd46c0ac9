"""The nemesis: faults as scopes, each one planned, injected, felt, healed and recovered."""

from labs.harness.nemesis.nemesis import Nemesis
from labs.harness.nemesis.scope import FaultRecord, NemesisError, Scope
from labs.harness.nemesis.shapes import Grudge, ShapeError, complete_grudge, place_clients

__all__ = [
    "FaultRecord",
    "Grudge",
    "Nemesis",
    "NemesisError",
    "Scope",
    "ShapeError",
    "complete_grudge",
    "place_clients",
]
