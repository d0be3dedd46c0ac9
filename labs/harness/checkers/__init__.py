"""Consistency checkers: from a history alone to a verdict, and a story when it is bad."""

from __future__ import annotations

from labs.harness.checkers.availability import check_availability, recoveries, windows
from labs.harness.checkers.causal import check_causal
from labs.harness.checkers.elements import check_queue, check_set, check_unique_ids
from labs.harness.checkers.lanes import draw_svg, draw_text
from labs.harness.checkers.linearizable import check_linearizable
from labs.harness.checkers.locks import check_lock
from labs.harness.checkers.lost_writes import LostWrite, check_lost_writes
from labs.harness.checkers.models import MODELS, Model
from labs.harness.checkers.online import OnlineRegister
from labs.harness.checkers.result import Counterexample, Result, worst
from labs.harness.checkers.sequential import check_sequential
from labs.harness.checkers.sessions import check_convergence, check_session
from labs.harness.checkers.totals import check_bank, check_counter, check_long_fork
from labs.harness.checkers.txn import check_txn

__all__ = [
    "MODELS",
    "Counterexample",
    "LostWrite",
    "Model",
    "OnlineRegister",
    "Result",
    "check_availability",
    "check_bank",
    "check_causal",
    "check_convergence",
    "check_counter",
    "check_linearizable",
    "check_lock",
    "check_long_fork",
    "check_lost_writes",
    "check_queue",
    "check_sequential",
    "check_session",
    "check_set",
    "check_txn",
    "check_unique_ids",
    "draw_svg",
    "draw_text",
    "recoveries",
    "windows",
    "worst",
]
