"""Fresh random histories in every run: the first seed comes from the clock and is printed.

CHECKER_SEED=… repeats a run, CHECKER_RUNS=100000 takes longer.
"""

from __future__ import annotations

import os
import time

FIRST_SEED = int(os.environ.get("CHECKER_SEED", time.time_ns() // 1_000_000 % 10**9))
RUNS = int(os.environ.get("CHECKER_RUNS", "1000"))
COMMAND = f"CHECKER_SEED={FIRST_SEED} CHECKER_RUNS={RUNS}"
