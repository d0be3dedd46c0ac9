"""What a run can be told, from the command line or make's variables, checked before it starts."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from labs.harness.lab.catalogue import Unknown
from labs.harness.testbed import compose_engine
from labs.harness.testbed.compose_engine import Engine, NoEngine

Substrate = Literal["local", "compose", "simulation"]
Plane = Literal["proxies", "packets"]
ON = ("auto", "local", "compose", "simulation")
FAULTS = ("proxies", "packets")
NEMESIS = ("on", "off")
SEEDS = range(2**32)
REPEATS = range(1, 10_001)
NODES = range(3, 10)  # fewer have no majority to lose; more only take longer


class Unavailable(Exception):
    """The run can't start here; the message says what is missing and what to type."""


@dataclass(frozen=True, slots=True)
class Options:
    """Checked options of one run.

    `why` tells how ON=auto was decided; `plane` where faults of links strike; `engine` answers
    when the substrate is compose.
    """

    substrate: Substrate
    why: str
    plane: Plane
    engine: Engine | None
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
    kinds: Callable[[], Iterable[str]] = tuple,
    tell: Callable[[str], None] = lambda _: None,
) -> Options:
    """Check what the user asked for, and find out what ON=auto means here.

    Args:
        kinds: gives the kinds of members that the run needs images of; called only for compose.
        tell: is told what takes long (an image is pulled or built), before it does.

    Raises Unknown, ValueError or Unavailable with a line for the user (exit code 2).
    """
    on = on or "auto"
    if on not in ON:
        raise Unknown("ON", on, list(ON))
    faults = os.environ.get("FAULTS", "") or "proxies"
    if faults not in FAULTS:
        raise Unknown("FAULTS", faults, list(FAULTS))
    nemesis = os.environ.get("NEMESIS", "on") or "on"
    if nemesis not in NEMESIS:
        raise Unknown("NEMESIS", nemesis, list(NEMESIS))
    plane: Plane = "packets" if faults == "packets" else "proxies"
    seed_number = _number("SEED", seed, SEEDS, default=secrets.randbelow(10_000))
    repeats = _number("REPEAT", repeat, REPEATS, default=1)
    node_count = _number("NODES", nodes, NODES, default=5)
    # The last question of all: an engine takes a moment to answer, an image may have to be built.
    substrate, why, engine = _substrate(on, plane, kinds, tell)
    if substrate == "simulation":
        why = f"seed {seed_number}, virtual time"
    return Options(
        substrate=substrate,
        why=why,
        plane=plane,
        engine=engine,
        seed=seed_number,
        repeat=repeats,
        nodes=node_count,
        nemesis=nemesis == "on",
        predict=predict,
    )


def _substrate(
    on: str, plane: Plane, kinds: Callable[[], Iterable[str]], tell: Callable[[str], None]
) -> tuple[Substrate, str, Engine | None]:
    if plane == "packets":
        if on == "simulation":
            raise Unavailable("FAULTS=packets needs containers: say FAULTS=proxies")
        if on == "local":
            raise Unavailable("FAULTS=packets needs containers: say ON=compose, or FAULTS=proxies")
        if sys.platform != "linux":
            raise Unavailable("FAULTS=packets needs Linux: say FAULTS=proxies")
    if on == "simulation":
        return "simulation", "", None
    if on == "local":
        return "local", "asked for", None
    try:
        engine = _compose(plane, kinds, tell)
    except Unavailable as missing:
        if on == "compose" or plane == "packets":
            asked = f"ON={on}" if on == "compose" else f"FAULTS={plane}"
            otherwise = (
                "stay with ON=local" if plane == "proxies" else "say FAULTS=proxies ON=local"
            )
            raise Unavailable(f"{asked} can't run here: {missing}\nOr {otherwise}.") from None
        return "local", str(missing), None
    return "compose", "asked for" if on == "compose" else f"{engine} answers", engine


def _compose(
    plane: Plane, kinds: Callable[[], Iterable[str]], tell: Callable[[str], None]
) -> Engine:
    """The engine, once the images of the run are there. Raises Unavailable."""
    try:
        engine = compose_engine.find()
    except NoEngine as error:
        raise Unavailable(f"{error}; for containers type: {error.remedy}") from None
    from labs.harness.testbed import compose_images  # only now: most runs do without

    try:
        compose_images.prepare(kinds(), packets=plane == "packets", tell=tell)
    except compose_images.NoImages as error:
        raise Unavailable(str(error)) from None
    return engine


def _number(name: str, text: str | None, allowed: range, *, default: int) -> int:
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or int(text) not in allowed:
        raise ValueError(f"{name}={text} is not allowed: a whole number from {allowed[0]} to "
                         f"{allowed[-1]}")  # fmt: skip
    return int(text)
