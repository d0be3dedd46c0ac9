"""The run directory: its own name for every run, `latest`, and the joined evidence."""

from __future__ import annotations

import json
from pathlib import Path

from labs.harness.history import load
from labs.harness.lab.directory import join, new_run_directory, share, slug


def test_runs_of_one_second_do_not_share_a_directory(tmp_path: Path) -> None:
    """Two runs that begin in the same second get directories of their own."""
    directories = [new_run_directory("partition", tmp_path) for _ in range(5)]

    assert len(set(directories)) == 5
    assert all(path.name.endswith("-partition") for path in directories)


def test_latest_is_the_newest(tmp_path: Path) -> None:
    """`runs/latest` leads to the run that began last."""
    new_run_directory("partition", tmp_path)
    newest = new_run_directory("partition", tmp_path)

    assert (tmp_path / "latest").resolve() == newest.resolve()


def test_evidence_is_joined_with_its_variant(tmp_path: Path) -> None:
    """Lines of all variants, each with a `variant` member; node events in the order of time."""
    for variant in ("raft", "naive failover"):
        own = tmp_path / slug(variant)
        own.mkdir()
        (own / "history.jsonl").write_text('{"index":0}\n')
        (own / "n1.events.jsonl").write_text('{"monotonic_ns":2,"node":"n1"}\n')
        (own / "n2.events.jsonl").write_text('{"monotonic_ns":1,"node":"n2"}\n')

    join(tmp_path, ["raft", "naive failover"])

    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert history == [{"variant": "raft", "index": 0}, {"variant": "naive failover", "index": 0}]
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["node"] for event in events] == ["n2", "n1", "n2", "n1"]
    assert (tmp_path / "faults.jsonl").read_text() == ""


def test_half_a_line_of_a_killed_node_is_left_out(tmp_path: Path) -> None:
    """A process killed while it wrote leaves half a line; the rest of its events still count."""
    (tmp_path / "raft").mkdir()
    (tmp_path / "raft" / "n1.events.jsonl").write_text('{"monotonic_ns":1}\n{"monoto')

    join(tmp_path, ["raft"])

    assert (tmp_path / "events.jsonl").read_text() == '{"variant":"raft","monotonic_ns":1}\n'


def test_a_variants_history_is_without_operations_at_nodes_of_others(tmp_path: Path) -> None:
    """An error of the control's producer is none of the variant beside it; the fault is of both."""
    lines = [
        {"process": 0, "type": "invoke", "f": "send", "value": 1, "client": "c1", "node": "p1"},
        {"process": 1, "type": "invoke", "f": "send", "value": 2, "client": "c1", "node": "q1"},
        {"process": "nemesis", "type": "invoke", "f": "kill", "value": {"target": "p1 q1"}},
        {"process": 1, "type": "fail", "f": "send", "value": 2, "error": "refused"},
        {"process": 0, "type": "ok", "f": "send", "value": 1},
        {"process": 1, "type": "invoke", "f": "send", "value": 3, "client": "c1", "node": "both"},
        {"process": 1, "type": "ok", "f": "send", "value": 3},
    ]
    shared = tmp_path / "shared"
    shared.mkdir()
    numbered = [{"index": at, "time": at, **line} for at, line in enumerate(lines)]
    (shared / "history.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in numbered))

    share(shared, tmp_path / "mine", {"q1"})
    share(shared, tmp_path / "its", {"p1"})

    mine, its = (load(tmp_path / own / "history.jsonl") for own in ("mine", "its"))
    assert [(op.value, op.type) for op in mine.ops] == [(1, "ok"), (3, "ok")]
    assert [(op.value, op.type) for op in its.ops] == [(2, "fail"), (3, "ok")]
    assert len(mine.nemesis) == len(its.nemesis) == 1
