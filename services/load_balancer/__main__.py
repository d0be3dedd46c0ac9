"""`python -m services.load_balancer`: configured by LOAD_BALANCER_* in the environment."""

from __future__ import annotations

import os
import sys

from services.load_balancer import main

if __name__ == "__main__":
    sys.exit(main(os.environ))
