"""What one run leaves to the next because it is dear to make and never changes: servers' files."""

from __future__ import annotations

import os
from pathlib import Path


def kept(name: str) -> Path:
    """Where that is, or would be: beside the other programs' caches (XDG Base Directory)."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "faultline" / name
