"""`python -m services.consumer`: one consumer or producer, configured by CONSUMER_*."""

from __future__ import annotations

import os
import sys

from services.consumer import main

if __name__ == "__main__":
    sys.exit(main(os.environ))
