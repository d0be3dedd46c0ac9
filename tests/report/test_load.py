"""From a run directory to typed data: what is read, joined, left out, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labs.harness.report import budget, messages
from labs.harness.report.data import RunError, Stay, shown
from labs.harness.report.events import Wide
from labs.harness.report.load import find, load_run
from labs.harness.report.trace import orphans, tree
from tests.report.runs import HOSTILE, make_run


def test_everything_is_joined_on_one_axis(tmp_path: Path) -> None:
    """Operations, requests, replication and process logs get the times of the history."""
    run = load_run(make_run(tmp_path / "run"))
    (variant,) = run.variants
    trace = [line for line in variant.lines if line.trace_id == f"{1:032x}"]

    assert [(line.node, line.event) for line in trace] == [
        ("c1", "invoke"),
        ("n2", "replicate"),
        ("n1", "request"),
        ("c1", "ok"),
    ]
    assert [line.at_us for line in trace] == [10_000, 11_000, 11_500, 12_000]
    assert {line.request_id for line in trace} == {"r-0"}
    assert [(span.line.node, span.depth) for span in tree(trace)] == [
        ("c1", 0),
        ("n1", 1),
        ("n2", 2),
    ]
    assert not orphans(variant.lines)


def test_roles_and_terms(tmp_path: Path) -> None:
    """Who was what from when to when; a node that says nothing more stays what it was."""
    (variant,) = load_run(make_run(tmp_path / "run")).variants

    assert variant.stays[:2] == [
        Stay("n1", -50_000, 1_000, "starting", None),
        Stay("n1", 1_000, variant.end_us, "leader", 3),
    ]


def test_a_killed_node_has_no_role_from_then_on() -> None:
    """kill -9 leaves no farewell: the fault's record says when."""
    steps = [(0, "n1", "start", b"{}"), (10, "n1", "become_leader", b'{"term":2}')]

    found = messages.stays(steps, [(50, "n1")], 100)

    assert found[-1] == Stay("n1", 10, 50, "leader", 2)


def test_a_service_without_a_protocol_serves() -> None:
    """It has no role to tell of, and is not starting for ever."""
    steps = [(0, "gateway", "start", b"{}"), (0, "n1", "start", b"{}"),
             (10, "n1", "become_follower", b'{"term":1}')]  # fmt: skip

    found = messages.stays(steps, [], 100)

    assert found[0] == Stay("gateway", 0, 100, "serves", None)
    assert [stay.role for stay in found[1:]] == ["starting", "follower"]


@pytest.mark.parametrize(
    ("event", "role"),
    [
        ("become_primary", "primary"),
        ("become_pre_candidate", "pre-candidate"),
        ("look", "looking"),
        ("start_view_change", "view-change"),
        ("fatal", ""),
        ("grant_vote", None),
    ],
)
def test_the_steps_of_each_protocol_lead_to_roles(event: str, role: str | None) -> None:
    """In the words of its paper; what is no change of role leaves it alone."""
    assert messages.role_after(event) == role


def test_frames_are_joined_by_link_and_number() -> None:
    """What was sent and never received was lost; a restarted node counts from 1 again."""
    n1 = Wide("frames", "n1", sent=[(1000, "n2", 1, "Vote", 1, 1), (2000, "n2", 2, "Vote", 1, 1),
                                    (9000, "n2", 1, "Vote", 1, 2)])  # fmt: skip
    n2 = Wide("frames", "n2", received=[(1500, "n1", 1), (9500, "n1", 1)])

    found = messages.join([n1, n2], 0)

    assert [(each.sent_us, each.received_us) for each in found] == [(1, 1), (2, None), (9, 9)]


def test_half_a_line_costs_that_line_alone(tmp_path: Path) -> None:
    """A process killed while it wrote leaves half a line behind: it is counted and told."""
    directory = make_run(tmp_path / "run")
    with (directory / "odd-store" / "n1.events.jsonl").open("ab") as file:
        file.write(b'{"event":"requ')
    run = load_run(directory)

    assert run.unreadable == 1
    assert run.variants[0].lines


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run / "verdict.json").unlink(), "no verdict.json there"),
        (lambda run: (run / "verdict.json").write_text("{"), "damaged"),
        (lambda run: (run / "verdict.json").write_text('{"lab": 7}'), "damaged"),
        (lambda run: (run / "odd-store" / "history.jsonl").write_text("{}\n"), "no 'index'"),
        (lambda run: (run / "odd-store" / "history.jsonl").unlink(), "No such file"),
        (
            lambda run: (run / "odd-store" / "watched.json").write_text("[]"),
            "watched.json: damaged",
        ),
    ],
)
def test_a_damaged_run_is_one_clear_line(tmp_path: Path, damage: object, said: str) -> None:
    """Missing or damaged: the file and what is wrong with it."""
    directory = make_run(tmp_path / "run")
    damage(directory)  # type: ignore[operator]

    with pytest.raises(RunError, match=said) as error:
        load_run(find(str(directory)))
    assert "\n" not in str(error.value)


def test_a_variant_that_never_started_is_shown(tmp_path: Path) -> None:
    """Its trouble is the whole story; there is no history to be missed."""
    directory = make_run(tmp_path / "run")
    path = directory / "verdict.json"
    verdict = json.loads(path.read_text())
    verdict["variants"].append({"name": "never", "expected": "holds", "trouble": "no port"})
    path.write_text(json.dumps(verdict))

    assert load_run(directory).variants[1].result.trouble == "no port"


def test_runs_are_found_by_name(tmp_path: Path) -> None:
    """A path, a name, its beginning; nearest ones are told otherwise."""
    made = make_run(tmp_path / "20260101-odd")

    assert find("20260101", tmp_path) == find("20260101-odd", tmp_path) == made.resolve()
    with pytest.raises(RunError, match="no run 'nope' here; the last ones: 20260101-odd"):
        find("nope", tmp_path)
    with pytest.raises(RunError, match="there is no run yet"):
        find(None, tmp_path / "empty")


def test_control_characters_are_spelled_out() -> None:
    """What a terminal or a browser would act on is shown as text, and long text is cut."""
    for text in HOSTILE:
        assert shown(text).isprintable()
        assert len(shown(text)) <= 200
    assert shown("a\x1b[31m\n") == "a\\x1b[31m\\n"
    assert shown("🦑") == "🦑"


def test_a_sample_keeps_what_a_reader_looks_for(tmp_path: Path) -> None:
    """Of too many operations: the counterexamples', those that failed, and an even rest; told."""
    (variant,) = load_run(make_run(tmp_path / "run", operations=400)).variants
    ops = variant.history.ops
    chosen = budget.choose_ops(ops, [7, 300], 100)

    assert {7, 300} <= set(chosen)
    assert 90 <= len(chosen) <= 100
    bad = sum(ops[at].type != "ok" for at in chosen)
    assert bad >= 50
    assert chosen[-1] - chosen[0] > 350
