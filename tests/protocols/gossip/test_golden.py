"""Golden transcripts: stories of a few gossiping nodes, told command by command, in `testdata/`.

Read them as an introduction: suspicion (ping, proxies, suspect, refute), restart (why a new life
needs a new incarnation), rumour (told, met by those who know it, dropped; and whom it has missed).
How they are written: tests/protocols/raft/transcript.py and transcript.py.

After a change of the core: `python -m pytest tests/protocols/gossip/test_golden.py --rewrite`, then
read the diff, and commit only what you understand and want.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.protocols.golden import check_readable, check_transcript, transcripts, used_commands
from tests.protocols.gossip.transcript import COMMANDS, GossipInterpreter

FILES = transcripts(__file__)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    """What happens is, line by line, what the transcript says."""
    check_transcript(path, request, GossipInterpreter)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript_can_be_read_at_one_sitting(path: Path) -> None:
    """Each is short, opens with what it shows, and tells how to update it."""
    check_readable(path)


def test_every_command_is_used() -> None:
    """A command that no story needs is not kept."""
    assert set(COMMANDS) - used_commands(FILES) == set()
