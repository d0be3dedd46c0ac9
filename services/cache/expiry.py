"""When an entry ends: jitter, so that not all end at once, and probabilistic early recomputation.

**Jitter.** What was filled together (after a restart, by a batch job) expires together, and the
database meets all of it in the same instant. A random share of the time to live spreads it out.

**XFetch** (Vattani, Chierichetti, Lowenstein, *Optimal Probabilistic Cache Stampede Prevention*,
VLDB 2015, Algorithm 3). Each reader of an entry that is still good decides by itself, without
locks or messages, whether to recompute it *now*:

    now - delta · beta · ln(random) ≥ expiry

`delta` is how long the recomputation took the last time, `beta` how eager to be (1 is optimal, §4).
`-ln(random)` is exponentially distributed: the chance rises the closer the expiry, the longer the
recomputation and the more readers there are, so that a hot key is nearly always recomputed before
it ends, by about one of them.

Chance and time are inputs.
"""

from __future__ import annotations

import math


def jittered_ms(ttl_ms: int, share: float, draw: float) -> int:
    """`ttl_ms` up to `share` (0 … 1) longer or shorter; `draw` is uniform in [0, 1).

    At least 1 ms: zero means "for ever" to Memcached and is an error to Redis.
    """
    assert 0.0 <= share <= 1.0, share
    assert 0.0 <= draw < 1.0, draw
    return max(1, round(ttl_ms * (1.0 + share * (2.0 * draw - 1.0))))


def recompute_early(
    now_ms: float, expires_ms: float, delta_ms: float, beta: float, draw: float
) -> bool:
    """XFetch: should this reader recompute an entry that it may still serve?

    `draw` is uniform in [0, 1); `beta` 0 never recomputes before the expiry.
    """
    # ln(0) is -∞: the draw of 0.0 would always recompute. 1 - draw is in (0, 1], as in the paper.
    return now_ms - delta_ms * beta * math.log(1.0 - draw) >= expires_ms
