"""The console that commands write to."""

from __future__ import annotations

from rich.console import Console


def console() -> Console:
    """At most 100 columns, a page's width; in a file or a pipe, where nobody says, exactly that."""
    out = Console(highlight=False)
    if not out.is_terminal or out.width > 100:
        out = Console(highlight=False, width=100)
    return out
