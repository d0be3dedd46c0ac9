"""Histories: operations, the recorder, and readers and writers of the common formats."""

from __future__ import annotations

from labs.harness.history.jepsen import load_jepsen, parse_jepsen, save_edn
from labs.harness.history.jsonl import load, parse, save
from labs.harness.history.op import History, HistoryError, NemesisEvent, Op
from labs.harness.history.porcupine import load_porcupine
from labs.harness.history.recorder import Recorder

__all__ = [
    "History",
    "HistoryError",
    "NemesisEvent",
    "Op",
    "Recorder",
    "load",
    "load_jepsen",
    "load_porcupine",
    "parse",
    "parse_jepsen",
    "save",
    "save_edn",
]
