"""The trace that a client begins: each operation is the root span of its own.

The ids are in the call's line of the history, written before the request is sent: an operation that
nobody answered is the one whose trace and log lines a reader wants most.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

# Seeded by the operating system: with the run's seed both variants would draw the same ids.
_random = Random()


def reseed(seed: int) -> None:
    """For a simulation: the ids, too, come from its seed."""
    _random.seed(seed)


@dataclass(frozen=True, slots=True)
class Trace:
    """The ids of one operation: 32, 16 and 8 hexadecimal digits.

    `sampled`: whether the services are to record it.
    """

    trace_id: str
    span_id: str
    request_id: str
    sampled: bool = True

    @property
    def headers(self) -> dict[str, str]:
        """What the request carries (W3C Trace Context, and the id that log lines are joined by)."""
        return {
            "traceparent": f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}",
            "X-Request-Id": self.request_id,
        }

    @property
    def fields(self) -> dict[str, Any]:
        """What the history keeps of it."""
        ids = {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "request_id": self.request_id,
        }
        return ids if self.sampled else {**ids, "sampled": False}


def new_trace(sample: float = 1.0) -> Trace:
    """Ids that no other operation has. `sample`: the share that is to be recorded.

    Drawn from the trace id itself, by its last 56 bits (OpenTelemetry's consistent probability
    sampling): anybody who sees the id comes to the same decision.
    """
    bits = _random.getrandbits
    trace_id = f"{bits(128) or 1:032x}"
    sampled = int(trace_id[-14:], 16) < sample * 2**56
    return Trace(trace_id, f"{bits(64) or 1:016x}", f"{bits(32):08x}", sampled)
