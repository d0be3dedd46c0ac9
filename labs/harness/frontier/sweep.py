"""All settings under all seeds, on all cores; then the table and the page."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import track

from labs.harness.frontier.run import Outcome, run
from labs.harness.frontier.settings import SETTINGS, Setting
from labs.harness.frontier.summary import Point, point, table
from labs.harness.lab.directory import near

OUTCOMES = "outcomes.json"
PAGE = "report.html"
WIDTH = 150  # of the table; narrower, its figures would be cut to pieces


def sweep(
    seeds: Sequence[int],
    directory: Path,
    out: Console,
    *,
    settings: Sequence[Setting] = SETTINGS,
    processes: int | None = None,
) -> list[Point]:
    """Run, tell, and leave `outcomes.json` and `report.html` in `directory`."""
    from labs.harness.frontier import page  # Bokeh's import is not cheap

    work = [(setting, seed) for seed in seeds for setting in settings]
    processes = processes or multiprocessing.cpu_count()
    # spawn: nothing of this process is inherited by chance.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        running: Iterable[Outcome] = pool.imap_unordered(run, work)
        found = list(track(running, "simulating", len(work), console=out, transient=True))
    found.sort(key=lambda each: (each.setting, each.seed))
    points = [
        point(setting, [each for each in found if each.setting == setting.name])
        for setting in settings
    ]
    (directory / OUTCOMES).write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    about = (
        f"{len(seeds)} seeds from {seeds[0]} on, each the same load and the same faults for all "
        "settings, in the simulation: two of five nodes cut off, one of them loses its disk, later "
        "another is killed. Three replicas. Whiskers are 95 % intervals over whole runs. Large "
        "dots are the defaults of the stores named (etcd runs Raft)."
    )
    written = page.write(directory / PAGE, points, about)
    narrow = out.width < WIDTH
    wide = Console(file=out.file, width=WIDTH, force_terminal=out.is_terminal) if narrow else out
    wide.print(table(points))
    if undecided := sum(each.undecided for each in points):
        out.print(f"{undecided} runs: linearizability was not decided in time")
    out.print(f"page: {near(written)}", soft_wrap=True, highlight=False)
    return points
