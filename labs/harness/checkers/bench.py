"""`make bench-checkers`: our checkers beside porcupine, on the same histories in the same run.

Each figure is the least of several runs; a ratio is ours divided by porcupine's (below 1: we are
faster). Goals that are ratios are judged only where Go is present; without it the table says so.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from labs.harness.checkers.bench_cases import simulated, spoiled
from labs.harness.checkers.bench_porcupine import Measured, Porcupine
from labs.harness.checkers.causal import check_causal
from labs.harness.checkers.linearizable import check_linearizable
from labs.harness.checkers.online import OnlineRegister
from labs.harness.history import History, load_porcupine

HISTORIES = Path(__file__).resolve().parents[4] / "shared" / "histories"


@dataclass(slots=True)
class Case:
    """One row: what is checked, and what shall come out."""

    name: str
    make: Callable[[], list[History]]
    model: str = "cas-register"
    goal_s: float | None = None
    goal_ratio: float | None = None
    against: bool = True  # porcupine can be asked in reasonable time
    runs: int = 3


def _one(history: History) -> list[History]:
    return [history]


def cases() -> list[Case]:
    """Unique values first, then general ones: hot key, pending-heavy, violating."""
    found = [
        Case(
            "unique, 100 k ops, 100 keys, 30 clients in all",
            lambda: _one(simulated(100_000, keys=100)),
            goal_ratio=1 / 3,
            runs=10,
        ),
        Case(
            "unique, 100 k ops, 100 keys, 5 clients each",
            lambda: _one(simulated(100_000, keys=100, clients=500)),
            goal_ratio=1 / 3,
            runs=10,
        ),
        Case(
            "unique, 1 M ops, 1000 keys, 30 clients in all",
            lambda: _one(simulated(1_000_000, keys=1000)),
            goal_ratio=1 / 2,
            runs=5,
        ),
        Case(
            "unique, 1 M ops, 1000 keys, 5 clients each",
            lambda: _one(simulated(1_000_000, keys=1000, clients=5000)),
            goal_ratio=1 / 2,
            runs=5,
        ),
        Case(
            "unique, 1 M ops, one key, 30 clients",
            lambda: _one(simulated(1_000_000)),
            goal_s=0.5,
            against=False,
            runs=5,
        ),
        Case("unique, 10 k ops, one key", lambda: _one(simulated(10_000)), goal_ratio=1, runs=5),
        Case(
            "unique, one key, 10 % pending",
            lambda: _one(simulated(1_000, pending_share=0.1)),
            goal_ratio=1,
            runs=5,
        ),
    ]
    for clients in (3, 5, 10):
        hot = {"clients": clients, "values": 5}
        for name, extra in _GENERAL.items():
            found.append(_general(f"5 values, {clients} clients{name}", hot | extra))
    found.append(
        Case(
            "5 values, 30 clients, hot key",
            lambda: _one(simulated(1_000, clients=30, values=5)),
            goal_ratio=1,
        )
    )
    kv = sorted((HISTORIES / "porcupine" / "kv").glob("*.txt"))
    found += [_text(path) for path in kv]
    etcd = sorted((HISTORIES / "porcupine" / "jepsen").glob("*.log"))
    etcd = [path for path in etcd if path.stat().st_size]  # of 103 one is empty
    if etcd:
        logs = Case("102 etcd logs", lambda: list(map(load_porcupine, etcd)), goal_s=0.012, runs=20)
        logs.goal_ratio = 1
        found.append(logs)
    return found


_GENERAL: dict[str, dict[str, float]] = {
    "": {},
    ", cas": {"cas_share": 0.2},
    ", cas, 5 % pending": {"cas_share": 0.2, "pending_share": 0.05, "count": 500},
    ", violating": {"spoil": 1},
}


def _general(name: str, options: dict[str, float]) -> Case:
    def make() -> list[History]:
        wanted = dict(options)
        count, spoil = int(wanted.pop("count", 2_000)), wanted.pop("spoil", 0)
        history = simulated(
            count,
            clients=int(wanted["clients"]),
            values=int(wanted["values"]),
            cas_share=wanted.get("cas_share", 0.0),
            pending_share=wanted.get("pending_share", 0.0),
        )
        return _one(spoiled(history) if spoil else history)

    return Case(name, make, goal_ratio=1, runs=5)


def _text(path: Path) -> Case:
    return Case(f"key-value {path.name}", lambda: _one(load_porcupine(path)), "key-value")


def ours(case: Case, histories: list[History], timeout_s: float) -> tuple[float, list[str]]:
    """Least time over the runs, and our verdicts in porcupine's words."""
    words: dict[object, str] = {True: "Ok", False: "Illegal", "unknown": "Unknown"}
    best, run = float("inf"), 0
    verdicts: list[str] = []
    begin = time.perf_counter()
    # On either side, what takes milliseconds is repeated for half a second: on a machine that does
    # other things too the least of five runs says little.
    while run < case.runs or (run < 200 and time.perf_counter() - begin < 0.5):
        run += 1
        start = time.perf_counter()
        results = [
            check_linearizable(history, case.model, timeout_s=timeout_s, explain=False)
            for history in histories
        ]
        best = min(best, time.perf_counter() - start)
        verdicts = [words[result.valid] for result in results]
    return best, verdicts


def _seconds(figure: float) -> str:
    return f"{figure * 1e3:.1f} ms" if figure < 1 else f"{figure:.2f} s"


def judge(case: Case, took: float, theirs: Measured | None) -> tuple[str, bool | None]:
    """The goal in words, and whether it was met (None: no goal, or nothing to compare with)."""
    if case.goal_s is not None:
        return f"<= {_seconds(case.goal_s)}", took <= case.goal_s
    if case.goal_ratio is None:
        return "", None
    met = None if theirs is None else took <= case.goal_ratio * theirs.seconds
    return f"<= {case.goal_ratio:.2f}x", met


def _other_rates(count: int) -> list[tuple[str, float, float]]:
    """(what, operations per second, goal) of the checkers that porcupine has not."""
    history = simulated(count, keys=10, clients=10)
    found: list[tuple[str, float, float]] = []
    events = [(op.invoke_ns, 0, op) for op in history.ops]
    events += [(op.return_ns or 0, 1, op) for op in history.ops]
    events.sort(key=lambda event: event[:2])

    def online() -> None:
        register = OnlineRegister()
        for time_ns, returned, op in events:
            if returned:
                register.complete(op)
            else:
                register.invoke(op.f, op.key, op.value, time_ns)

    jobs: list[tuple[str, Callable[[], object], float]] = [
        ("online register", online, 150_000),
        ("causal CC, 10 sessions", lambda: check_causal(history, "CC"), 200_000),
        ("causal CCv, 10 sessions", lambda: check_causal(history, "CCv"), 70_000),
    ]
    for name, job, goal in jobs:
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            job()
            best = min(best, time.perf_counter() - start)
        found.append((name, count / best, goal))
    return found


def main(argv: list[str]) -> int:
    """Print the table; 1 if a goal was missed or a verdict differs, else 0."""
    parser = argparse.ArgumentParser(prog="bench-checkers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small cases only")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--timeout-s", type=float, default=20.0, help="per history")
    options = parser.parse_args(argv)
    console = Console(width=120)
    table = Table(title="checkers: least of several runs")
    for column in ("history", "ours", "porcupine", "ratio", "goal", "met", "verdicts"):
        table.add_column(column, justify="left" if column in ("history", "verdicts") else "right")
    missed = 0
    with Porcupine() as porcupine:
        if porcupine.why_absent:
            console.print(f"No porcupine beside us: {porcupine.why_absent}. Ratios are not judged.")
        for case in cases():
            if options.only not in case.name or (options.quick and " M ops" in case.name):
                continue
            console.print(f"[dim]{case.name} …[/dim]")
            histories = case.make()
            took, verdicts = ours(case, histories, options.timeout_s)
            theirs = None
            if case.against:
                theirs = porcupine.measure(histories, runs=2, timeout_s=options.timeout_s)
            goal, met = judge(case, took, theirs)
            differ = theirs is not None and any(
                a != b
                for a, b in zip(verdicts, theirs.verdicts, strict=False)
                if "Unknown" not in (a, b)
            )
            missed += met is False or differ
            table.add_row(
                case.name,
                _seconds(took),
                "" if theirs is None else _seconds(theirs.seconds),
                "" if theirs is None else f"{took / theirs.seconds:.3f}",
                goal,
                {True: "yes", False: "NO", None: ""}[met],
                _verdicts(verdicts, theirs, differ),
            )
    rates = [] if options.only else _other_rates(20_000 if options.quick else 200_000)
    for name, rate, wanted in rates:
        met = rate >= wanted
        missed += not met
        row = (name, f"{rate / 1e3:.0f} k/s", "", "", f">= {wanted / 1e3:.0f} k/s")
        table.add_row(*row, "yes" if met else "NO", "")
    console.print(table)
    return 1 if missed else 0


def _verdicts(verdicts: list[str], theirs: Measured | None, differ: bool) -> str:
    if differ:
        return "DIFFER"
    text = verdicts[0] if len(verdicts) == 1 else f"{verdicts.count('Ok')} of {len(verdicts)} Ok"
    if theirs is not None and "Unknown" in theirs.verdicts:
        text += " (porcupine gave up)"
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
