"""What the golden tests of all protocols share: run a transcript, compare, tell or rewrite."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

import pytest

from tests.protocols.raft.transcript import Interpreter, TranscriptError, commands_of, run

ROOT = Path(__file__).resolve().parents[2]
LINES_MAX = 150


def transcripts(module: str) -> list[Path]:
    """The files in `testdata/` beside a test module, given as its `__file__`."""
    return sorted((Path(module).parent / "testdata").glob("*.txt"))


def difference(file: str, expected: str, actual: str) -> str:
    """Where the trace differs, as file and line, and the unified diff; empty if it does not."""
    if expected == actual:
        return ""
    before, after = expected.splitlines(), actual.splitlines()
    same = zip(before, after, strict=False)
    first = next((i for i, (a, b) in enumerate(same) if a != b), min(len(before), len(after)))
    diff = unified_diff(
        before, after, f"{file} (expected)", f"{file} (what happens now)", "", "", 3, ""
    )
    test = Path(file).parent.parent / "test_golden.py"
    how = f"If it should: python -m pytest {test.as_posix()} --rewrite"
    return "\n".join([f"{file}:{first + 1}: the trace differs. {how}", *diff])


def check_transcript(
    path: Path, request: pytest.FixtureRequest, interpreter: type[Interpreter] = Interpreter
) -> None:
    """What happens is, line by line, what the transcript says; `--rewrite` makes it so."""
    file, expected = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    try:
        actual = run(expected, file, interpreter)
    except TranscriptError as error:
        upto = "\n".join(expected.splitlines()[: len(error.before.splitlines())])
        pytest.fail(f"{error}\n{difference(file, upto, error.before)}", pytrace=False)
    if request.config.getoption("--rewrite"):
        path.write_text(actual, encoding="utf-8")
        return

    told = difference(file, expected, actual)

    if told:
        pytest.fail(told, pytrace=False)


def check_readable(path: Path) -> None:
    """Short, opens with what it shows, and tells how to update it."""
    text = path.read_text(encoding="utf-8")

    assert len(text.splitlines()) <= LINES_MAX
    assert "§" in text.split("\n\n")[0]
    assert "test_golden.py --rewrite updates this file" in text.split("\n\n")[0]


def used_commands(files: list[Path]) -> set[str]:
    """The commands that some story needs."""
    used: set[str] = set()
    return used.union(*(commands_of(path.read_text(encoding="utf-8")) for path in files))
