"""What a run can be told, from the command line or make's variables, checked before it starts."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import Literal

from labs.harness.lab.catalogue import Unknown

Substrate = Literal["local", "compose", "simulation"]
ON = ("auto", "local", "compose", "simulation")
NEMESIS = ("on", "off")
SEEDS = range(2**32)
REPEATS = range(1, 10_001)
NODES = range(3, 10)  # fewer have no majority to lose; more only take longer


class Unavailable(Exception):
    """The run can't start here; the message says what is missing and what to type."""


@dataclass(frozen=True, slots=True)
class Options:
    """Checked options of one run. `why` tells how ON=auto was decided."""

    substrate: Substrate
    why: str
    seed: int
    repeat: int
    nodes: int
    nemesis: bool
    predict: bool


def check(
    *,
    on: str = "auto",
    seed: str | None = None,
    repeat: str | None = None,
    nodes: str | None = None,
    predict: bool = False,
) -> Options:
    """Raises Unknown or ValueError with a line for the user (exit code 2)."""
    if on not in ON:
        raise Unknown("ON", on, list(ON))
    nemesis = os.environ.get("NEMESIS", "on") or "on"
    if nemesis not in NEMESIS:
        raise Unknown("NEMESIS", nemesis, list(NEMESIS))
    substrate, why = _substrate(on)
    seed_number = _number("SEED", seed, SEEDS, default=secrets.randbelow(10_000))
    if substrate == "simulation":
        why = f"seed {seed_number}, virtual time"
    return Options(
        substrate=substrate,
        why=why,
        seed=seed_number,
        repeat=_number("REPEAT", repeat, REPEATS, default=1),
        nodes=_number("NODES", nodes, NODES, default=5),
        nemesis=nemesis == "on",
        predict=predict,
    )


def _substrate(on: str) -> tuple[Substrate, str]:
    if on == "simulation":
        return "simulation", ""
    if on == "compose":
        raise Unavailable(f"ON={on} is not built yet; type: make lab-… ON=local")
    why = "asked for" if on == "local" else "local processes need nothing but Python"
    return "local", why


def _number(name: str, text: str | None, allowed: range, *, default: int) -> int:
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or int(text) not in allowed:
        raise ValueError(f"{name}={text} is not allowed: a whole number from {allowed[0]} to "
                         f"{allowed[-1]}")  # fmt: skip
    return int(text)
