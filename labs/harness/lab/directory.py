"""The run directory: `runs/<time>-<lab>/`, and `runs/latest` pointing at the newest."""

from __future__ import annotations

import os
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[3]
SHARED = "shared"  # what variants leave behind that share a cluster
HISTORY = "history.jsonl"
JOINED = (HISTORY, "faults.jsonl", "events.jsonl")


def new_run_directory(lab: str, root: Path = ROOT / "runs") -> Path:
    """Make `root/<time>-<lab>`, unique also when two runs begin within the same second."""
    root.mkdir(exist_ok=True)
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        suffix = f".{attempt}" if attempt else ""
        directory = root / f"{stamp}{suffix}-{lab}"
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        _point_latest_at(directory)
        return directory
    raise AssertionError(f"a thousand runs of {lab} began at {stamp}")


def _point_latest_at(directory: Path) -> None:
    """Swap the link in one step, so that a reader never finds it missing."""
    temporary = directory.parent / f".latest-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(directory.name, target_is_directory=True)
    temporary.replace(directory.parent / "latest")


def join(directory: Path, variants: list[str]) -> None:
    """Make the run's `history.jsonl`, `faults.jsonl` and `events.jsonl` from its variants'.

    Each line gets a `variant` member in front. Node events are merged by the machine's monotonic
    clock, which no clock fault touches.
    """
    for name in JOINED:
        with (directory / name).open("wb") as joined:
            for variant in variants:
                for line in _lines(directory / slug(variant), name):
                    joined.write(msgspec.json.encode({"variant": variant, **line}) + b"\n")


def share(shared: Path, own: Path, others: Collection[str]) -> None:
    """Make a variant's directory from that of the cluster that it shared, by links.

    `others`: nodes that are other variants' alone; what they told, and what clients asked of them,
    is left out.
    """
    own.mkdir()
    for path in sorted(shared.iterdir()):
        if path.name == HISTORY:
            _copy_history(path, own / HISTORY, others)
        elif path.is_file() and path.name.partition(".")[0] not in others:
            (own / path.name).symlink_to(Path("..", shared.name, path.name))


def _copy_history(shared: Path, own: Path, others: Collection[str]) -> None:
    """Without the operations at `others`; each line that stays keeps its index."""
    away: set[Any] = set()  # processes whose operation is at one of `others`
    with own.open("wb") as kept:
        for line in read_lines(shared):
            if line["type"] == "invoke":
                (away.add if line.get("node") in others else away.discard)(line["process"])
            if line["process"] not in away:
                kept.write(msgspec.json.encode(line) + b"\n")


def _lines(directory: Path, name: str) -> list[dict[str, Any]]:
    if name != "events.jsonl":
        return read_lines(directory / name)
    events = [
        event for path in sorted(directory.glob("*.events.jsonl")) for event in read_lines(path)
    ]
    return sorted(events, key=lambda event: int(event.get("monotonic_ns", 0)))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a process killed while it wrote may leave half a line behind."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                lines.append(msgspec.json.decode(line, type=dict[str, Any]))
            except msgspec.DecodeError:
                continue
    return lines


def slug(name: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in name.lower()).strip("-")


def near(path: Path) -> Path:
    """The path as a user would type it here."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
