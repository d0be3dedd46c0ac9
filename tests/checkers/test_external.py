"""No wrong verdict on other projects' histories (`../shared/histories`), which have their verdicts.

Not covered, because nobody says what is right: `elle-cli/custom/comments.edn` (no verdict, and two
calls without a return between them), `elle-cli/elle/rw-register.*` (called true although it reads a
value that nobody wrote: README.md). Porcupine's logs have `test_porcupine_logs.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labs.harness.checkers import (
    Result,
    check_bank,
    check_counter,
    check_long_fork,
    check_set,
    check_txn,
)
from labs.harness.history import HistoryError, load_jepsen

PLACE = Path(__file__).resolve().parents[3] / "shared" / "histories"
pytestmark = pytest.mark.skipif(not PLACE.is_dir(), reason="../shared/histories is not here")


def expected() -> dict[str, dict[str, Any]]:
    """Verdicts by file."""
    path = PLACE / "expected.json"
    return json.loads(path.read_text()) if path.exists() else {}


def named(part: str) -> list[str]:
    """Files whose name holds `part`."""
    return [name for name in expected() if part in name]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("elle/huge-scc.edn", "strong-snapshot-isolation"),
        ("elle-cli/elle/paper-example.edn", "strict-serializable"),
        ("elle-cli/elle/paper-example.json", "strict-serializable"),
        ("elle/paper-example.edn", "strict-serializable"),
        ("elle-cli/elle/list-append-gh-30.edn", "serializable"),
        ("elle/si-without-g-single.edn", "repeatable-read"),
    ],
)
def test_list_append(name: str, model: str) -> None:
    """Elle's histories violate the model that Elle says they violate."""
    result = check_txn(load_jepsen(PLACE / name), "list-append", consistency=model)
    assert result.valid is False
    assert result.counterexample is not None
    assert len(result.counterexample.sentences) <= 6


def test_anomalies_that_elle_names() -> None:
    """G2-item without G-single; snapshot isolation holds. In huge-scc: G2-item-realtime."""
    history = load_jepsen(PLACE / "elle/si-without-g-single.edn")
    result = check_txn(history, "list-append", consistency="snapshot-isolation")
    assert result.valid is True
    assert "G2-item" in result.stats["anomalies"]
    assert "G-single" not in result.stats["anomalies"]

    huge = check_txn(load_jepsen(PLACE / "elle/huge-scc.edn"), "list-append")
    assert set(huge.stats["violates"]) == {"strong-snapshot-isolation", "strict-serializable"}
    assert "G2-item-realtime" in huge.stats["anomalies"]


CHECKS = {"counter": check_counter, "set": check_set, "bank": check_bank, "long": check_long_fork}


@pytest.mark.parametrize("name", named("elle-cli/jepsen/"))
def test_jepsen_workloads(name: str) -> None:
    """counter, set, set-full, bank, long-fork, from EDN and from JSON."""
    check = next(check for word, check in CHECKS.items() if word in name.rpartition("/")[2])
    result: Result = check(load_jepsen(PLACE / name))  # type: ignore[operator]
    assert result.valid is expected()[name]["expected"]


def test_every_expectation_is_covered() -> None:
    """What this module leaves out is what its docstring says."""
    listed = ("porcupine/", "elle-cli/jepsen/", "elle/huge", "elle/si-", "paper", "gh-30")
    left = [name for name in expected() if not any(part in name for part in listed)]
    assert left == ["elle-cli/elle/rw-register.edn", "elle-cli/elle/rw-register.json"]
    assert all("do not use" in expected()[name]["note"] for name in left)


def test_a_file_without_a_verdict_is_refused() -> None:
    """comments.edn: the second call comes before the first one returned."""
    with pytest.raises(HistoryError, match=r"comments.edn:2: process 0 has two open operations"):
        load_jepsen(PLACE / "elle-cli/custom/comments.edn")
