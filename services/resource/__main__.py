"""`python -m services.resource`: configured by RESOURCE_* in the environment."""

from __future__ import annotations

import os
import sys

from services.resource import main

if __name__ == "__main__":
    sys.exit(main(os.environ))
