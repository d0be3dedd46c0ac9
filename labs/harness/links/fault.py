"""The words for what a link can suffer: `Link`, `LinkFault`, and what a caller then sees.

| kind | open connections | new connections | caller sees |
|---|---|---|---|
| `blackhole`, `drop` | held: nothing moves until the heal | accepted, then silence | its deadline |
| `clog` | as above, bytes are taken in | set up, then silence | its deadline |
| `delay` | later, in order | set up at once, bytes later | latency |
| `rate` | slower, shared by the link | the same | latency that grows with the body |
| `refuse` | reset now | refused | connection reset; connection refused |
| `reset` | reset now | accepted, then reset | connection reset |

`drop` with `stream="response"` lets requests take effect while their answers are held.

Nothing here loses bytes *inside* a connection: TCP would send them again, so at a byte stream loss
is delay (toxiproxy#39, #578). What was on its way when a link was cut arrives after the heal.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, get_args

import msgspec

Kind = Literal["blackhole", "drop", "clog", "delay", "rate", "refuse", "reset"]
StreamName = Literal["request", "response"]
STREAMS: tuple[StreamName, ...] = get_args(StreamName)

HOLDING: frozenset[str] = frozenset({"blackhole", "drop", "clog"})
"""Kinds under which a caller gets no answer before the heal."""


class Link(NamedTuple):
    """A directed link: the connections that `src` opens to `dst`, requests and responses."""

    src: str
    dst: str

    def __str__(self) -> str:
        return f"{self.src}→{self.dst}"


class LinkFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault on one link (FAULTS: network). Raises ValueError when the parts do not fit.

    `stream` narrows `blackhole`, `drop`, `clog`, `delay` and `rate` to one stream (None: both).
    `delay` takes `time_ms` (each stream) and `jitter_ms` (uniform ±, order is kept), `rate` takes
    `rate_kbit` (kilobit per second and stream, shared by the connections of the link).
    """

    kind: Kind
    stream: StreamName | None = None
    time_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 0
    jitter_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 0
    rate_kbit: Annotated[float, msgspec.Meta(ge=0, le=10_000_000)] = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown fault {self.kind!r}; one of {', '.join(get_args(Kind))}")
        if self.stream is not None and self.stream not in STREAMS:
            raise ValueError(f"unknown stream {self.stream!r}; one of request, response")
        if self.kind in ("refuse", "reset") and self.stream is not None:
            raise ValueError(f"{self.kind} hits whole connections, it takes no stream")
        if self.kind == "delay":
            if not 0 < self.time_ms <= 60_000 or not 0 <= self.jitter_ms <= self.time_ms:
                raise ValueError("delay needs 0 < time_ms <= 60000 and 0 <= jitter_ms <= time_ms")
        elif self.time_ms or self.jitter_ms:
            raise ValueError(f"{self.kind} takes neither time_ms nor jitter_ms")
        if self.kind == "rate":
            if not 1 <= self.rate_kbit <= 10_000_000:
                raise ValueError("rate needs 1 <= rate_kbit <= 10000000")
        elif self.rate_kbit:
            raise ValueError(f"{self.kind} takes no rate_kbit")

    def on(self, stream: StreamName) -> bool:
        """Whether this fault acts on `stream`."""
        return self.stream is None or self.stream == stream

    def __str__(self) -> str:
        words: list[str] = [self.kind]
        if self.stream:
            words.append(f"of the {self.stream}")
        if self.time_ms:
            words.append(f"{self.time_ms:g} ms" + f" ± {self.jitter_ms:g}" * bool(self.jitter_ms))
        if self.rate_kbit:
            words.append(f"{self.rate_kbit:g} kbit/s")
        return " ".join(words)


class StreamStats(msgspec.Struct, frozen=True):
    """Bytes of one stream of one link.

    `passed`: handed on since the link was opened; `passed_during_fault`: of these, since the
    present fault was set; `held`: accepted or waiting now, not handed on; `abandoned`: held until
    the caller gave up, never handed on (since the link was opened).
    """

    passed: int
    passed_during_fault: int
    held: int
    abandoned: int


class LinkStats(msgspec.Struct, frozen=True):
    """Counters of one link. `open`: connections now; `accepted`: since the link was opened.

    `reset`: connections that a fault reset; `target_refused`: those the target did not take.
    (What the kernel refused for a closed listener, no one can count.)
    """

    open: int
    accepted: int
    reset: int
    target_refused: int
    request: StreamStats
    response: StreamStats
    fault: LinkFault | None = None
