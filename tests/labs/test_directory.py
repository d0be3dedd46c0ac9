"""The run directory: its own name for every run, `latest`, and the joined evidence."""

from __future__ import annotations

import json
from pathlib import Path

from labs.harness.lab.directory import join, new_run_directory, slug


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
