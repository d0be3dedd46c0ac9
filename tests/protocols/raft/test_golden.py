"""Golden transcripts: stories of small clusters, told command by command, in `testdata/`.

Read them as an introduction to Raft: election, split_vote, restart, conflict_repair, figure_8,
stale_leader, check_quorum, pre_vote_one_way, read_index, lease_read, idempotent_retries, snapshot,
transfer. How they are written is in transcript.py.

After a change of the core: `python -m pytest tests/protocols/raft/test_golden.py --rewrite`, then
read the diff, and commit only what you understand and want.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.protocols.golden import (
    TranscriptError,
    check_readable,
    check_transcript,
    difference,
    run,
    transcripts,
    used_commands,
)
from tests.protocols.raft.transcript import COMMANDS

FILES = transcripts(__file__)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    """What happens is, line by line, what the transcript says."""
    check_transcript(path, request)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript_can_be_read_at_one_sitting(path: Path) -> None:
    """Each is short, opens with what it shows, and tells how to update it."""
    check_readable(path)


def test_every_command_is_used() -> None:
    """A command that no story needs is not kept."""
    assert set(COMMANDS) - used_commands(FILES) == set()


def test_a_changed_expectation_is_a_difference() -> None:
    """One character changed in one trace is found, and named by file and line."""
    text = next(path for path in FILES if path.stem == "election").read_text(encoding="utf-8")
    changed = text.replace("becomes leader of term 1", "becomes leader of term 2", 1)
    line = next(i for i, one in enumerate(changed.splitlines(), 1) if "leader of term 2" in one)
    assert difference("election.txt", text, run(text, "election.txt")) == ""

    told = difference("election.txt", changed, run(changed, "election.txt"))

    assert told.startswith(f"election.txt:{line}: the trace differs")
    assert "\n-  n1 becomes leader of term 2" in told
    assert "\n+  n1 becomes leader of term 1" in told


def test_rewriting_keeps_comments_and_remarks() -> None:
    """A comment stays above its command, and a remark at its line, when the rest changes."""
    text = "# why\nadd-nodes 1\n----\nstale\nn1 start: followers, term 0, empty logs  # here\n"

    assert run(text, "t.txt") == text.replace("stale\n", "")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("# a\nfly n1\n----\n", "t.txt:2: fly n1: StoryError: no such command: fly"),
        ("add-nodes 1\n----\n\ndeliver\n----\n", "t.txt:4: deliver: StoryError: nothing is in fl"),
        ("add-nodes 1\n----\n\ntick n7 1\n----\n", "t.txt:4: tick n7 1: StoryError: no such node"),
        ("add-nodes 1\n\n", "t.txt:2: commands without a trace"),
        ("add-nodes\n----\n", "t.txt:1: add-nodes: TypeError"),
    ],
)
def test_a_story_that_cannot_be_told_names_file_and_line(text: str, error: str) -> None:
    """Mistakes in a transcript are errors of their own, not differences."""
    with pytest.raises(TranscriptError) as raised:
        run(text, "t.txt")

    assert str(raised.value).startswith(error)
