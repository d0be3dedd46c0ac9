"""What a run does, as data: settings, operations and faults, each with its time.

Goal: a run that failed can be run again with less of it, until nothing more can be left out.
Method: everything is drawn before the run begins. Nothing in the run draws what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from labs.harness.links.fault import LinkFault
from labs.harness.nemesis.shapes import cut_links, random_halves

CLIENTS = ("c1", "c2")
KEYS = ("register-0", "register-1")
ACTIVE_S = 4.0  # operations and faults; then everything is healed
DISKS_MS = ((0.1, 0.4), (0.1, 0.4), (1, 5), (10, 40))  # how long an fdatasync takes


@dataclass(frozen=True, slots=True)
class Operation:
    """A request of one client: `f` is read or write."""

    at_s: float
    place: str
    f: str
    key: str
    value: int | None

    def __str__(self) -> str:
        what = f"{self.f} {self.key}" + (f" = {self.value}" if self.f != "read" else "")
        return f"{self.at_s:6.3f} s  {self.place} asks: {what}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong from `at_s` on, for `for_s` seconds.

    `kind`: links (`fault` on `links`), power (of `nodes`, which lose what was not synchronized and
    come back one after the other, in that order, each `for_s` after the one before), kill, pause,
    bump, drift (`amount`: ms, or the rate).
    """

    at_s: float
    for_s: float
    kind: str
    nodes: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    fault: LinkFault | None = None
    amount: float = 0.0

    def __str__(self) -> str:
        where = " ".join(self.nodes) or ", ".join(f"{src}→{dst}" for src, dst in self.links)
        words = {
            "power": f"power fails at {where}: what was not synchronized may be lost",
            "kill": f"{where} killed",
            "pause": f"{where} paused",
            "bump": f"clock of {where} stepped by {self.amount:g} ms",
            "drift": f"clock of {where} at rate {self.amount:g}",
            "links": f"{self.fault} on {where}",
        }
        return f"{self.at_s:6.3f} s  {words[self.kind]}, for {self.for_s:.3f} s"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `disks_ms`: shortest and longest fdatasync of each node."""

    seed: int
    nodes: int
    disks_ms: tuple[tuple[float, float], ...]
    environment: tuple[tuple[str, str], ...]
    operations: tuple[Operation, ...]
    faults: tuple[Fault, ...]


def draw(seed: int) -> Plan:
    """The plan of a seed. Each run has a character of its own (swarm testing, Groce et al. 2012):
    a few kinds of faults, often, find more than all kinds now and then."""
    random = Random(f"plan {seed}")
    nodes = random.choice((3, 3, 5))
    names = [f"n{number}" for number in range(1, nodes + 1)]
    kinds = random.sample(sorted(DRAW), random.randint(1, 4))
    faults, at_s = [], 0.3
    period_s = random.choice((0.15, 0.3, 0.6))
    while (at_s := at_s + random.expovariate(1 / period_s)) < ACTIVE_S:
        faults.append(DRAW[random.choice(kinds)](random, names, at_s))
    snapshot_entries = random.choice(("20", "10000"))
    return Plan(
        seed,
        nodes,
        _disks(random, nodes),
        (("KV_SNAPSHOT_ENTRIES", snapshot_entries),),
        tuple(_operations(random)),
        tuple(faults),
    )


def _disks(random: Random, nodes: int) -> tuple[tuple[float, float], ...]:
    """Alike, or each node with one of its own: then a leader may be ahead of its followers' disks
    for a long time."""
    if random.random() < 0.5:
        return (random.choice(DISKS_MS),) * nodes
    return tuple(random.choice(DISKS_MS) for _ in range(nodes))


def _operations(random: Random) -> list[Operation]:
    found: list[Operation] = []
    rate, at_s, value, once = random.choice((20, 60)), 0.0, 0, 0
    while (at_s := at_s + random.expovariate(rate)) < ACTIVE_S:
        place, dice, key = random.choice(CLIENTS), random.random(), random.choice(KEYS)
        value += 1
        if dice < 0.4:
            found.append(Operation(at_s, place, "read", key, None))
        elif dice < 0.7:
            once += 1
            found.append(Operation(at_s, place, "write", f"once-{once}", value))
        else:
            found.append(Operation(at_s, place, "write", key, value))
    return found


# --------------------------------------------------------------------- faults


def _some(random: Random, names: list[str]) -> tuple[str, ...]:
    most = random.choice((1, 1, len(names) // 2, len(names)))
    chosen = random.sample(names, random.randint(1, most))
    return tuple(name for name in names if name in chosen)


def _of_nodes(kind: str) -> Any:
    def drawn(random: Random, names: list[str], at_s: float) -> Fault:
        return Fault(at_s, random.choice((0.02, 0.2, 0.8)), kind, _some(random, names))

    return drawn


def _power(random: Random, names: list[str], at_s: float) -> Fault:
    struck = names if random.random() < 0.5 else list(_some(random, names))
    order = tuple(random.sample(struck, len(struck)))
    return Fault(at_s, random.choice((0.02, 0.2, 0.6)), "power", order)


def _clock(random: Random, names: list[str], at_s: float) -> Fault:
    kind, amount = random.choice((("bump", 2_000.0), ("bump", -500.0), ("drift", 1.5)))
    return Fault(at_s, random.choice((0.3, 1.0)), kind, _some(random, names), amount=amount)


def _links(random: Random, names: list[str]) -> tuple[tuple[str, str], ...]:
    """One link, all of one node, or all between two groups; clients fall on a side."""
    every = [(a, b) for a in [*CLIENTS, *names] for b in names if a != b]
    shape = random.random()
    if shape < 0.3:
        return tuple(random.sample(every, random.randint(1, 3)))
    if shape < 0.6:
        lone = random.choice(names)
        return tuple(link for link in every if lone in link)
    return tuple(tuple(link) for link in cut_links(random_halves(names, random)))  # type: ignore[misc]


def _cut(random: Random, names: list[str], at_s: float) -> Fault:
    kind = random.choice(("blackhole", "blackhole", "clog", "drop", "reset", "refuse"))
    stream = random.choice(("request", "response")) if kind == "drop" else None
    fault = LinkFault(kind, stream)  # type: ignore[arg-type]
    return Fault(at_s, random.choice((0.1, 0.5, 1.2)), "links", (), _links(random, names), fault)


def _slow(random: Random, names: list[str], at_s: float) -> Fault:
    time_ms = random.choice((5.0, 40.0, 200.0))
    fault = LinkFault("delay", time_ms=time_ms, jitter_ms=time_ms * random.choice((0.1, 0.9)))
    return Fault(at_s, random.choice((0.3, 1.2)), "links", (), _links(random, names), fault)


DRAW = {
    "power": _power,
    "kill": _of_nodes("kill"),
    "pause": _of_nodes("pause"),
    "clock": _clock,
    "cut": _cut,
    "slow": _slow,
}
