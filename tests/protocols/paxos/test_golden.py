"""Golden transcripts: stories of small clusters, told command by command, in `testdata/`.

Read them as an introduction to Paxos: ballot (both phases), take_over (values proposed again,
gaps filled), highest, preempted (two leaders, one majority), out_of_order, one_way_deaf, reads,
snapshot, restart.
How they are written: tests/protocols/raft/transcript.py and transcript.py.

After a change of the core: `python -m pytest tests/protocols/paxos/test_golden.py --rewrite`, then
read the diff, and commit only what you understand and want.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.protocols.paxos.transcript import COMMANDS, PaxosInterpreter
from tests.protocols.raft.test_golden import LINES_MAX, ROOT, difference
from tests.protocols.raft.transcript import TranscriptError, commands_of, run

FILES = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    """What happens is, line by line, what the transcript says."""
    file, expected = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    try:
        actual = run(expected, file, PaxosInterpreter)
    except TranscriptError as error:
        upto = "\n".join(expected.splitlines()[: len(error.before.splitlines())])
        pytest.fail(f"{error}\n{difference(file, upto, error.before)}", pytrace=False)
    if request.config.getoption("--rewrite"):
        path.write_text(actual, encoding="utf-8")
        return

    told = difference(file, expected, actual).replace("/raft/", "/paxos/")

    if told:
        pytest.fail(told, pytrace=False)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript_can_be_read_at_one_sitting(path: Path) -> None:
    """Each is short, opens with what it shows, and tells how to update it."""
    text = path.read_text(encoding="utf-8")

    assert len(text.splitlines()) <= LINES_MAX
    assert "§" in text.split("\n\n")[0]
    assert "test_golden.py --rewrite updates this file" in text.split("\n\n")[0]


def test_every_command_is_used() -> None:
    """A command that no story needs is not kept."""
    used = set().union(*(commands_of(path.read_text(encoding="utf-8")) for path in FILES))

    assert set(COMMANDS) - used == set()
