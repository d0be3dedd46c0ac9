"""Fresh random histories in every run: the first seed comes from the clock and is printed.

CHECKER_SEED=… repeats a run, CHECKER_RUNS=100000 takes longer. The drawn one is put into the
environment, so that the processes that share a run (pytest -n) share it, too.
"""

from __future__ import annotations

import os
import time

FIRST_SEED = int(os.environ.setdefault("CHECKER_SEED", str(time.time_ns() // 1_000_000 % 10**9)))
RUNS = int(os.environ.get("CHECKER_RUNS", "1000"))
COMMAND = f"CHECKER_SEED={FIRST_SEED} CHECKER_RUNS={RUNS}"
