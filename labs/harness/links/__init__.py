"""Links: one proxy per directed link, and what it does to the bytes that cross it."""

from labs.harness.links.control import Link, LinkFault, Links, LinksError, LinkStats
from labs.harness.links.fault import StreamStats
from labs.harness.links.server import main

__all__ = ["Link", "LinkFault", "LinkStats", "Links", "LinksError", "StreamStats", "main"]
