"""lab-monitoring end to end: a real Prometheus, its alerts, and a control that nobody hears of."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labs.harness.workloads.slo import error_rules, in_words
from labs.harness.workloads.stress import Step, capacity
from labs.monitoring import BLIP, ONE_OF, SYMPTOMS, USERS_PER_S
from tests.harness.testbed.test_prometheus import require_prometheus
from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

BROKEN = "Somebody is told of an outage within its window"


@pytest.fixture(scope="module")
def passed() -> tuple[str, dict[str, Any], Path]:
    """One run of the lab with a fixed seed, shared by the tests that look at it."""
    require_prometheus()
    answer = labs("run", "monitoring", ON="local", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


@pytest.mark.slow
def test_the_symptom_is_told_and_the_cause_is_not(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """All claims hold of the burn rates; the control breaks the one that it exists to break."""
    output, verdict, _ = passed
    symptoms, cause = verdict["variants"]

    assert verdict["verdict"] == "pass"
    assert all(claim["holds"] for claim in symptoms["claims"]), symptoms["claims"]
    assert len(symptoms["claims"]) == 7
    assert BROKEN in [each["text"] for each in cause["claims"] if not each["holds"]]
    assert cause["figures"]["told"] == "never"
    assert cause["figures"]["lost"] > 0.9 * cause["figures"]["sent"] > 50
    assert symptoms["members"]["prometheus"].startswith("prometheus ")
    assert f"{symptoms['figures']['lost']} of {symptoms['figures']['sent']}" in output


@pytest.mark.slow
def test_the_faults_were_felt_and_the_writes_recorded(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """Two cuts in the subject, one in the control; the report has each write."""
    _, verdict, directory = passed

    assert [fault["name"] for fault in verdict["faults"]] == ["partition"] * 3
    assert all(fault["felt"] and fault["recovered"] for fault in verdict["faults"])
    assert (directory / "symptoms" / "history.jsonl").stat().st_size > 10_000
    assert (directory / "symptoms" / "prometheus.log").stat().st_size > 0
    assert (directory / "symptoms" / "watched.json").exists()
    assert "What the monitoring saw" in (directory / "report.html").read_text()


STEP_S = 0.3  # between two scrapes
BLIP_AT, OUTAGE_AT, OUTAGE_UNTIL = 3.0, 24.0, 27.0


def scraped(leak_from: float, late: range) -> list[dict[str, str]]:
    """The counters of a leader and of a node that is cut off, as Prometheus scrapes them.

    `late`: the numbers of the leader's scrapes that come too late to count.
    """
    good, bad, rows = 0.0, 0.0, ([], [])  # type: ignore[var-annotated]
    for number in range(110):
        at, sent = number * STEP_S, USERS_PER_S * STEP_S
        leaks = sent / ONE_OF if leak_from < at <= 22.0 else 0.0
        failed = sent if OUTAGE_AT < at <= OUTAGE_UNTIL else leaks
        blip = BLIP if abs(at - BLIP_AT) < STEP_S / 2 else 0
        good, bad = good + sent - failed, bad + failed + blip
        rows[0].append("_" if number in late else f"{good:.1f}")
        rows[1].append(f"{bad:.1f}")
    labels = ('instance="n5",method="PUT",outcome="ok"',
              'instance="n1",method="PUT",outcome="unavailable"')  # fmt: skip
    return [
        {"series": f"requests_total{{{each}}}", "values": " ".join(row)}
        for each, row in zip(labels, rows, strict=True)
    ]


@pytest.mark.parametrize("late", [range(0), range(40, 43)], ids=["in-time", "late-scrapes"])
@pytest.mark.parametrize(("leak_from", "caught_by"), [(5.1, 9.6), (9.0, 13.5)])
def test_the_rules_tell_blip_leak_and_outage_apart(
    tmp_path: Path, leak_from: float, caught_by: float, late: range
) -> None:
    """Whenever the leak begins after the blip, and when a busy leader is scraped too late."""
    require_prometheus()
    expected = [
        *((at, alert, False) for at in (2.7, 5.1) for alert in ("Naive", "BurnFast", "BurnSlow")),
        *((3.0 + STEP_S * each, "BurnSlow", False) for each in range(1, 8)),
        *((3.0 + STEP_S * each, "BurnFast", False) for each in range(1, 8)),
        (3.6, "Naive", True),
        *((5.4 + STEP_S * each, "Naive", False) for each in range(48)),
        (caught_by, "BurnSlow", True),
        (21.9, "BurnSlow", True),  # the blip has left the window: the leak alone is enough
        (23.7, "BurnSlow", False),
        (26.7, "BurnFast", True),
        (30.0, "BurnFast", False),
    ]
    checks = [
        {
            "eval_time": f"{round(at * 1000)}ms",
            "alertname": alert,
            "exp_alerts": [{"exp_labels": {}}] if fires else [],
        }
        for at, alert, fires in expected
    ]
    case = {"interval": "300ms", "input_series": scraped(leak_from, late),
            "alert_rule_test": checks}  # fmt: skip
    (tmp_path / "rules.yml").write_text(SYMPTOMS)
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "300ms", "tests": [case]}
    (tmp_path / "test.yml").write_text(json.dumps(document))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_made_for_each_window() -> None:
    """What a write counts against is said once, for all windows."""
    rules = error_rules(("1s", "8s"))
    assert rules.count("record") == 4
    assert "'errors:8s'" in rules
    assert rules.count('outcome=~"unavailable|deadline-exceeded') == 4


def test_capacity_is_what_keeps_the_objective() -> None:
    """The most that could be got out of it, with everybody waiting, is not to be planned with."""
    steps = [Step(2, 100.0, 9.0, 0), Step(8, 300.0, 30.0, 0), Step(32, 400.0, 200.0, 0)]
    assert capacity(steps, p99_ms=50) == 300.0
    assert capacity(steps, p99_ms=5) == 0.0
    assert capacity([Step(2, 100.0, 9.0, 1)], p99_ms=50) == 0.0, "what fails is no capacity"


def test_alerts_in_the_order_of_time() -> None:
    assert in_words({"B": 12.0, "A": 10.5}, 10.0) == "A after 0.5 s, B after 2.0 s"
    assert in_words({}, 10.0) == "no alert fired"
