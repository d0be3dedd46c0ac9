"""`python -m labs.harness.links`: the link proxies as a process of their own."""

from __future__ import annotations

import os
import sys

from labs.harness.links.server import main

if __name__ == "__main__":
    sys.exit(main(os.environ))
