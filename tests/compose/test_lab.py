"""Labs on containers: the same lab file, the same verdict; of lab-partition claim by claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.compose.engine import require_engine
from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = [pytest.mark.compose, pytest.mark.slow]

ROUNDS = {"local": ("local", "proxies"), "proxies": ("compose", "proxies"),
          "packets": ("compose", "packets")}  # fmt: skip


def decided(verdict: dict[str, Any]) -> list[tuple[str, str, list[tuple[str, bool | None]]]]:
    """What a verdict says of each variant, claim by claim, without this run's figures."""
    return [
        (
            variant["name"],
            variant["outcome"],
            [(claim["text"], claim["holds"]) for claim in variant["claims"]],
        )
        for variant in verdict["variants"]
    ]


@pytest.fixture(scope="module")
def verdicts() -> dict[str, tuple[str, dict[str, Any], Path]]:
    """One run on each substrate and each plane, with the same seed."""
    require_engine()
    found = {}
    for name, (on, faults) in ROUNDS.items():
        answer = labs("run", "partition", ON=on, FAULTS=faults, SEED="7")
        assert answer.returncode == 0, answer.stdout + answer.stderr
        found[name] = (answer.stdout, *verdict_of(answer.stdout))
    return found


@pytest.mark.parametrize("where", ["proxies", "packets"])
def test_the_verdict_agrees_with_the_local_one(
    verdicts: dict[str, tuple[str, dict[str, Any], Path]], where: str
) -> None:
    """Claim by claim: what holds on processes holds on containers, by proxies and by packets."""
    (_, local, _), (output, here, _) = verdicts["local"], verdicts[where]

    assert here["verdict"] == local["verdict"] == "pass"
    assert decided(here) == decided(local)
    assert (here["substrate"], here["plane"]) == ROUNDS[where]
    assert f"on compose (asked for) · faults by {where}" in output
    assert [fault["name"] for fault in here["faults"]] == ["partition"] * 4
    assert all(fault["felt"] and fault["recovered"] for fault in here["faults"])


def test_the_evidence_is_complete(
    verdicts: dict[str, tuple[str, dict[str, Any], Path]],
) -> None:
    """Each node's log and wide events are in the run directory, as from processes."""
    for _, verdict, directory in verdicts.values():
        for variant in ("raft", "naive-failover"):
            for node in ("n1", "n2", "n3", "n4", "n5"):
                assert (directory / variant / f"{node}.log").exists(), verdict["substrate"]
                events = directory / variant / f"{node}.events.jsonl"
                assert events.stat().st_size > 0, (verdict["substrate"], node)


def test_election_decides_alike_on_containers() -> None:
    """The engine's freezer pauses, the service's own clock runs slow: what holds and what breaks is
    what holds and breaks on processes (tests/labs/test_election.py)."""
    require_engine()
    answer = labs("run", "election", ON="compose", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)
    fenced, unfenced = verdict["variants"]

    assert verdict["substrate"] == "compose"
    assert all(claim["holds"] for claim in fenced["claims"])
    assert [claim["holds"] for claim in unfenced["claims"]] == [True, True, False]
    assert fenced["figures"]["taken"] == 0 < fenced["figures"]["late"]
    assert all(fault["felt"] and fault["recovered"] for fault in verdict["faults"])


def test_the_cache_lab_passes_on_containers() -> None:
    """The same lab file with Redis and Memcached of the images: what holds holds, what breaks
    breaks."""
    require_engine("redis", "memcached")
    answer = labs("run", "cache", ON="compose", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)

    assert (verdict["verdict"], verdict["substrate"]) == ("pass", "compose")
    assert not any(claim["needs"] for variant in verdict["variants"] for claim in variant["claims"])
    assert "memcached" in verdict["variants"][0]["members"]
