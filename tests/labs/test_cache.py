"""lab-cache end to end, on real Redis and Memcached: the verdict, its control, its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = pytest.mark.slow

MUST_BREAK = {
    "A slow reader does not put an overwritten value back into the cache",
    "Redis killed and restarted under load: no reader gets an overwritten value",
    "A lost cache server costs its own share of the keys",
    "A crash of a cache node loses no acknowledged write",
    "Of many that miss a key at once, at most one at each cache node asks the database",
    "The database does not fall over when a hot key expires",
}


@pytest.fixture(scope="module")
def passed() -> tuple[str, dict[str, Any], Path]:
    answer = labs("run", "cache", ON="local", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


def test_both_variants_do_what_they_must(passed: tuple[str, dict[str, Any], Path]) -> None:
    """Guarded, everything holds; the control breaks all that it exists to break."""
    _, verdict, _ = passed

    assert verdict["verdict"] == "pass"
    guarded, naive = verdict["variants"]
    assert (guarded["outcome"], naive["outcome"]) == ("holds", "breaks")
    assert all(claim["holds"] for claim in guarded["claims"] if not claim["needs"])
    assert {claim["text"] for claim in naive["claims"] if claim["control_breaks"]} == MUST_BREAK
    assert not any(claim["holds"] for claim in naive["claims"] if claim["control_breaks"])


def test_the_figures_are_the_claims(passed: tuple[str, dict[str, Any], Path]) -> None:
    """One request against many; a quarter of the keys against three quarters."""
    output, verdict, _ = passed
    good, bad = (variant["figures"] for variant in verdict["variants"])

    assert good["asked"] <= 2 < bad["asked"] <= bad["burst"]
    assert good["gone"] == 0 < bad["gone"]
    assert good["missed"] < 0.5 < bad["missed"]
    assert good["lost"] == 0 < bad["lost"] <= bad["acknowledged"]
    assert good["stale"] == 0 < bad["stale"]
    for told in good["engines"].values():
        assert told["evictions"] > 0
        assert told["hit_ratio"] < 1
    if "Memcached" in good["engines"]:
        assert good["engines"]["Memcached"]["bytes"] < good["engines"]["Redis"]["bytes"] / 2
    assert f"lost {good['lost']} of {good['acknowledged']} acknowledged writes" in (
        " ".join(output.split())
    )


def test_every_fault_was_felt(passed: tuple[str, dict[str, Any], Path]) -> None:
    _, verdict, _ = passed

    assert [fault["name"] for fault in verdict["faults"]] == [
        "clog",
        "kill",
        "kill",
        "kill",
        "clog",
    ] * 2
    assert all(fault["felt"] and fault["recovered"] for fault in verdict["faults"])
