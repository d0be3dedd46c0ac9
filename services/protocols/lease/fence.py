"""The fence: a resource admits no token that is lower than one it has admitted before."""

from __future__ import annotations


class Fence:
    """`newest` is the greatest token admitted so far; 0 before the first.

    It has to survive the resource's restart: a fence that forgot is open to every former holder.
    """

    def __init__(self, newest: int = 0) -> None:
        assert newest >= 0, newest
        self.newest = newest

    def admits(self, token: int) -> bool:
        """May an act with this token take effect? Equal is fine: one holder acts many times.

        An old holder that acts *before* the new one's first act is admitted: that order is the
        order of their leases, and nobody can tell it from an act that was early.
        """
        return token >= self.newest

    def admit(self, token: int) -> bool:
        """`admits`, and the act takes effect: from now on nothing older does."""
        admitted = self.admits(token)
        self.newest = max(self.newest, token)
        return admitted
