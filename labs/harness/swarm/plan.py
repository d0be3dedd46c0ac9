"""What a run does, as data: settings, operations and faults, each with its time.

Goal: a run that failed can be run again with less of it, until nothing more can be left out.
Method: everything is drawn before the run begins. Nothing in the run draws what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from labs.harness.links.fault import LinkFault
from labs.harness.nemesis.shapes import cut_links, random_halves

CLIENTS = ("c1", "c2")
KEYS = ("register-0", "register-1")
ACTIVE_S = 4.0  # operations and faults; then everything is healed
# (acknowledgement, promotion): in these alone log shipping promises to lose no acknowledged write.
SAFE_SHIPPING = (
    ("asynchronous", "none"),
    ("semi_synchronous", "none"),
    ("synchronous", "none"),
    ("synchronous", "naive"),
)
FAST_MS, SLOW_MS = (0.1, 0.4), (10.0, 40.0)
DISKS_MS = (FAST_MS, FAST_MS, (1.0, 5.0), SLOW_MS)  # how long an fdatasync takes
UNDER_WAY = 0.2  # the share of runs in which power fails while writes are under way
ELECTED_WITHIN_S = 0.7  # nearly always


@dataclass(frozen=True, slots=True)
class Operation:
    """A request of one client: `f` is read or write; a read may trust the leader's `lease`."""

    at_s: float
    place: str
    f: str
    key: str
    value: int | None
    lease: bool = False

    def __str__(self) -> str:
        what = f"{self.f} {self.key}" + (f" = {self.value}" if self.f != "read" else "")
        what += " by lease" if self.lease else ""
        return f"{self.at_s:6.3f} s  {self.place} asks: {what}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong from `at_s` on, for `for_s` seconds.

    `kind`: links (`fault` on `links`), power (of `nodes`, which lose what was not synchronized and
    come back one after the other, in that order, each `for_s` after the one before), kill, pause,
    bump, drift (`amount`: ms, or the rate), full (the disks), fsync (the next one fails).
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
            "full": f"the disk of {where} is full",
            "fsync": f"the next fdatasync of {where} fails",
            "links": f"{self.fault} on {where}",
        }
        return f"{self.at_s:6.3f} s  {words[self.kind]}, for {self.for_s:.3f} s"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `disks_ms`: shortest and longest fdatasync of each node."""

    seed: int
    protocol: str
    nodes: int
    disks_ms: tuple[tuple[float, float], ...]
    environment: tuple[tuple[str, str], ...]
    operations: tuple[Operation, ...]
    faults: tuple[Fault, ...]


def draw(seed: int, protocol: str = "raft", *, active_s: float = ACTIVE_S) -> Plan:
    """The plan of a seed. Each run has a character of its own (swarm testing, Groce et al. 2012):
    a few kinds of faults, often, find more than all kinds now and then.

    `protocol`: what KV_PROTOCOL may say.
    """
    random = Random(f"plan {seed}")
    nodes = random.choice((3, 3, 5))
    names = [f"n{number}" for number in range(1, nodes + 1)]
    # A lease trusts clocks whose rates agree (raft/reads.py says how far); all else must hold with
    # any clocks.
    leases = random.random() < 0.3
    kinds = random.sample(sorted(DRAW), random.randint(1, 4))
    faults, at_s = [], 0.3
    period_s = random.choice((0.15, 0.3, 0.6))
    while (at_s := at_s + random.expovariate(1 / period_s)) < active_s:
        fault = DRAW[random.choice(kinds)](random, names, at_s)
        if leases and fault.kind == "drift":
            fault = replace(fault, amount=random.choice((0.9, 1.1)))
        faults.append(fault)
    environment = {"KV_SNAPSHOT_ENTRIES": random.choice(("20", "10000"))}
    if protocol == "primary_backup":
        acknowledgement, promotion = random.choice(SAFE_SHIPPING)
        environment |= {"KV_ACKNOWLEDGEMENT": acknowledgement, "KV_PROMOTION": promotion}
    plan = Plan(
        seed,
        protocol,
        nodes,
        _disks(random, nodes),
        tuple(environment.items()),
        tuple(_operations(random, active_s, leases=leases)),
        tuple(faults),
    )
    chance = Random(f"power under way {seed}")
    return _power_under_way(plan, chance, names) if chance.random() < UNDER_WAY else plan


def _power_under_way(plan: Plan, random: Random, names: list[str]) -> Plan:
    """One node's disk is far ahead of all others', and again and again the power fails everywhere
    just after a request was sent.

    Who acknowledges a write before it is on disk does so for milliseconds only, and it is lost only
    if a majority forgets it while the one that remembers (the leader, with the fast disk) comes
    back last. Left to the other draws, that took more than four hundred runs.
    """
    disks = [SLOW_MS] * len(names)
    disks[random.randrange(len(names))] = FAST_MS
    faults, from_s = [], ELECTED_WITHIN_S
    while later := [each.at_s for each in plan.operations if each.at_s > from_s]:
        at_s = random.choice(later[:20]) + random.uniform(0.001, 0.03)
        order = tuple(random.sample(names, len(names)))
        fault = Fault(at_s, random.choice((0.02, 0.1, 0.2)), "power", order)
        faults.append(fault)
        from_s = at_s + fault.for_s * len(names) + ELECTED_WITHIN_S
    return replace(plan, disks_ms=tuple(disks), faults=tuple(faults))


def _disks(random: Random, nodes: int) -> tuple[tuple[float, float], ...]:
    """Alike, or each node with one of its own: then a leader may be ahead of its followers' disks
    for a long time."""
    if random.random() < 0.5:
        return (random.choice(DISKS_MS),) * nodes
    return tuple(random.choice(DISKS_MS) for _ in range(nodes))


def _operations(random: Random, active_s: float, *, leases: bool) -> list[Operation]:
    found: list[Operation] = []
    rate, at_s, value, once = random.choice((20, 60)), 0.0, 0, 0
    while (at_s := at_s + random.expovariate(rate)) < active_s:
        place, dice, key = random.choice(CLIENTS), random.random(), random.choice(KEYS)
        value += 1
        if dice < 0.4:
            found.append(Operation(at_s, place, "read", key, None, leases))
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


def _disk(random: Random, names: list[str], at_s: float) -> Fault:
    kind = random.choice(("full", "fsync", "fsync"))
    return Fault(at_s, random.choice((0.1, 0.5)), kind, _some(random, names))


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
    "disk": _disk,
    "cut": _cut,
    "slow": _slow,
}
