"""`python -m services.kv`: one node of the store, configured by KV_* in the environment."""

from __future__ import annotations

import os
import sys

from services.kv import main

if __name__ == "__main__":
    sys.exit(main(os.environ))
