"""A stress run: how much can it do, and what does that cost those who wait?

Closed loops of more and more clients. Throughput grows until something is full; from there on more
clients only wait longer. *Capacity* is the best throughput at which the objective still holds: what
one may plan with, less than the most that could be got out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labs.harness.workloads.http_load import Load, run_load

WARM_UP_S = 0.15
KEYS = 64


class Step(NamedTuple):
    """What so many clients got: good answers a second, and how long 99 of 100 waited at most."""

    clients: int
    per_s: float
    p99_ms: float
    failures: int


def in_words(steps: Sequence[Step]) -> str:
    """`8 clients 310/s, p99 31 ms; …`."""
    return "; ".join(
        f"{step.clients} clients {step.per_s:.0f}/s, p99 {step.p99_ms:.0f} ms" for step in steps
    )


async def stress_writes(
    address: str, *, clients: Sequence[int] = (2, 8, 32), duration_s: float = 0.6
) -> list[Step]:
    """Writes of small values to the node at `address` ("host:port"), step by step.

    Raises OSError when the node is not there.
    """
    requests = [_put(f"stress-{number}", number) for number in range(KEYS)]
    steps = []
    for number in clients:
        found = await run_load(Load(address, number, WARM_UP_S, duration_s, requests))
        failures = sum(found.failures.values())
        steps.append(Step(number, found.throughput, found.p99_ms, failures))
    return steps


def capacity(steps: Sequence[Step], *, p99_ms: float) -> float:
    """The best throughput of the steps that keep the objective; 0 when none does."""
    good = [step.per_s for step in steps if step.p99_ms <= p99_ms and not step.failures]
    return max(good, default=0.0)


def _put(key: str, value: int) -> str:
    body = f'{{"value": {value}}}'
    return (
        f"PUT /kv/{key} HTTP/1.1\r\nHost: stress\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
