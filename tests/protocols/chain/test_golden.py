"""Golden transcripts: stories of short chains, told command by command, in `testdata/`.

Read them as an introduction to chain replication: normal_operation, reads, server_fails (what was
in process is sent again), head_fails, stale_tail (why a tail must ask before it answers), joining.
How they are written: tests/protocols/raft/transcript.py and transcript.py here.

After a change of the core, `python -m pytest tests/protocols/chain/test_golden.py --rewrite`;
then read the diff, and commit only what you understand and want.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.protocols.chain.transcript import COMMANDS, ChainInterpreter
from tests.protocols.golden import check_readable, check_transcript, transcripts, used_commands

FILES = transcripts(__file__)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    """What happens is, line by line, what the transcript says."""
    check_transcript(path, request, ChainInterpreter)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript_can_be_read_at_one_sitting(path: Path) -> None:
    """Each is short, opens with what it shows, and tells how to update it."""
    check_readable(path)


def test_every_command_is_used() -> None:
    """A command that no story needs is not kept."""
    assert set(COMMANDS) - used_commands(FILES) == set()
