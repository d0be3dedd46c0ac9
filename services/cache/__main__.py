"""`python -m services.cache`: one node of the cache, configured by CACHE_* in the environment."""

from __future__ import annotations

import os
import sys

from services.cache import main

if __name__ == "__main__":
    sys.exit(main(os.environ))
