"""Which node keeps a key: consistent hashing, and modulo, which it replaced."""

from services.protocols.placement.modulo import Modulo
from services.protocols.placement.ring import Ring

__all__ = ["Modulo", "Ring"]
