"""placeholder"""

from __future__ import annotations

from services.protocols.viewstamped.core import Viewstamped
from services.protocols.viewstamped.messages import MESSAGES, RECORDS
from services.protocols.viewstamped.state import Limits, Status

__all__ = ["MESSAGES", "RECORDS", "Limits", "Status", "Viewstamped"]
