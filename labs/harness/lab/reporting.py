"""The report at the end of a run, written once the verdict is out: nobody waits for a picture."""

from __future__ import annotations

from pathlib import Path

from labs.harness.lab.directory import near
from labs.harness.lab.story import Story


def write_report(directory: Path, story: Story) -> None:
    """Write `report.html` and say where it is.

    What goes wrong here is told and changes nothing: the run has its verdict.
    """
    # Only now: Bokeh's import takes longer than a cluster's start, and the verdict shall not wait.
    try:
        from labs.harness.report.load import load_run
        from labs.harness.report.write import write

        path = write(load_run(directory))
    except Exception as error:
        story.error(f"no report: {error}; try again: make report RUN={directory.name}")
    else:
        story.report(str(near(path)))
