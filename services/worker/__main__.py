"""`python -m services.worker`: configured by WORKER_* in the environment."""

from __future__ import annotations

import os
import sys

from services.worker import main

if __name__ == "__main__":
    sys.exit(main(os.environ))
