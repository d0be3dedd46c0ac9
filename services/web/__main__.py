"""`python -m services.web`: one replica, configured by WEB_* in the environment."""

from __future__ import annotations

import os
import sys

from services.web import main

if __name__ == "__main__":
    sys.exit(main(os.environ))
