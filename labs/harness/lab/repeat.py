"""REPEAT=n: the same lab again and again, and how often it did not pass, with its interval."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from rich.console import Console

from labs.harness.lab.definition import Lab
from labs.harness.lab.directory import new_run_directory
from labs.harness.lab.options import Options
from labs.harness.lab.reporting import write_report
from labs.harness.lab.runner import run
from labs.harness.lab.story import Story
from labs.harness.lab.verdict import EXIT_CODES


def wilson(hits: int, runs: int, *, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson 1927): sound also at 0 of n, where hits/n says 0 ± 0."""
    assert 0 <= hits <= runs, f"{hits} of {runs}"
    assert runs > 0
    rate = hits / runs
    middle = (rate + z * z / (2 * runs)) / (1 + z * z / runs)
    spread = (
        z * math.sqrt(rate * (1 - rate) / runs + z * z / (4 * runs * runs)) / (1 + z * z / runs)
    )
    return max(0.0, middle - spread), min(1.0, middle + spread)


def repeat(lab: Lab, options: Options, out: Console) -> int:
    """Run `lab` options.repeat times with successive seeds; the worst exit code."""
    words: Counter[str] = Counter()
    times: list[float] = []
    for number in range(options.repeat):
        once = replace(options, seed=(options.seed + number) % 2**32, repeat=1)
        story = Story(out, quiet=True)
        directory = new_run_directory(lab.name)
        verdict, _ = run(lab, once, story, directory)
        if verdict.verdict != "pass":
            write_report(directory, story)  # of those that passed, `make report RUN=…` does it
        words[verdict.verdict] += 1
        times.append(verdict.elapsed_s)
    failures = options.repeat - words["pass"]
    low, high = wilson(failures, options.repeat)
    counts = ", ".join(f"{count} {word}" for word, count in words.most_common())
    times.sort()
    out.print(f"\n[bold]{options.repeat} runs of {lab.name}[/]: {counts}")
    out.print(f"not passed: {failures}/{options.repeat} = {failures / options.repeat:.1%} "
              f"(95 % interval {low:.1%} to {high:.1%})")  # fmt: skip
    out.print(f"elapsed: median {times[len(times) // 2]:.1f} s, longest {times[-1]:.1f} s")
    return max(EXIT_CODES[word] for word in EXIT_CODES if words[word])
