"""Zab."""

from __future__ import annotations

from services.protocols.zab.core import Zab
from services.protocols.zab.messages import MESSAGES, RECORDS
from services.protocols.zab.state import Limits, Phase, State

__all__ = ["MESSAGES", "RECORDS", "Limits", "Phase", "State", "Zab"]
