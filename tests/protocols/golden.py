"""What the golden tests of all protocols share: run a transcript, compare, tell or rewrite."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path

import pytest

from tests.protocols.raft.transcript import Interpreter, StoryError

ROOT = Path(__file__).resolve().parents[2]
LINES_MAX = 150
REMARK = "  # "


class TranscriptError(Exception):
    """A story that cannot be told, or an invariant that does not hold. Names file and line.

    `before`: the blocks up to the one with the mistake, as `run` would return them.
    """

    def __init__(self, message: str, before: str = "") -> None:
        super().__init__(message)
        self.before = before


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


# ---- the files ------------------------------------------------------------------------------


def commands_of(text: str) -> set[str]:
    """The commands that a transcript uses."""
    lines = [line for line, _, is_trace in _classified(text) if not is_trace]
    words = [line.split() for line in lines if line and not line.startswith(("#", "----"))]
    return {name for word in words for name in (word[:2] if word[0] == "quietly" else word[:1])}


def _classified(text: str) -> Iterator[tuple[str, int, bool]]:
    """(line, its number, whether it belongs to a trace)."""
    is_trace = False
    for number, line in enumerate(text.splitlines(), 1):
        if not line:
            is_trace = False
        yield line, number, is_trace
        if line == "----":
            is_trace = True


def run(text: str, file: str, kind_of: type[Interpreter] = Interpreter) -> str:
    """The transcript as it should read: its commands and comments, with the traces of now.

    Raises TranscriptError, with `file` and the line.
    """
    interpreter = kind_of()
    output: list[str] = []
    pending: list[str] = []  # the trace of the block so far, not written out yet
    remarks: dict[str, list[str]] = {}
    ended = True  # is there a block with commands and no `----` yet?
    for line, number, is_trace in _classified(text + "\n"):
        if is_trace:
            fact, mark, remark = line.partition(REMARK)
            if mark:
                remarks.setdefault(fact, []).append(remark)
            continue
        if line == "----":
            pending, interpreter.trace, ended = interpreter.trace, [], True
        elif not line:
            if not ended:
                raise TranscriptError(
                    f"{file}:{number}: commands without a trace: `----` is missing"
                )
            output += [_remarked(fact, remarks) for fact in pending]
            pending, remarks = [], {}
        elif not line.startswith("#"):
            ended = False
            try:
                interpreter.execute(line)
            except (StoryError, AssertionError, TypeError, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
                before = "\n".join(output)
                raise TranscriptError(f"{file}:{number}: {line}: {reason}", before) from error
        output.append(line)
    return "\n".join(output).rstrip("\n") + "\n"


def _remarked(fact: str, remarks: dict[str, list[str]]) -> str:
    """A line of the trace with the remark that the file has on it."""
    waiting = remarks.get(fact)
    return f"{fact}{REMARK}{waiting.pop(0)}" if waiting else fact
