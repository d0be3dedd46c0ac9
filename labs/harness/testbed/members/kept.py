"""What one run leaves to the next because it is dear to make and never changes: servers' files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def kept(name: str) -> Path:
    """Where that is, or would be: beside the other programs' caches (XDG Base Directory)."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "faultline" / name


@contextmanager
def making(whole: Path) -> Iterator[Path]:
    """A directory to fill, beside its place, and moved there at the end: half is never taken for
    all. Who was at it at the same time and is second takes what the first has made.

    Its parent is temporary, too: for what is not to be kept.
    """
    whole.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{whole.name}-", dir=whole.parent) as temporary:
        draft = Path(temporary) / "draft"
        draft.mkdir()
        yield draft
        try:
            draft.rename(whole)
        except OSError:
            if not whole.is_dir():
                raise
