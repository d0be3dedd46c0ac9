"""Predictions: asked before the run with PREDICT=1, answered by the run's own results after it."""

from __future__ import annotations

from rich.console import Console
from rich.prompt import Confirm

from labs.harness.lab.definition import Lab, Results


def ask(lab: Lab, out: Console) -> list[bool]:
    """The user's yes or no to each prediction, asked on the console."""
    out.print("Before you look, predict:")
    return [
        Confirm.ask(f"  {number}. {prediction.question}", console=out)
        for number, prediction in enumerate(lab.predictions, 1)
    ]


def reveal(lab: Lab, results: Results, guesses: list[bool] | None, out: Console) -> None:
    """What the run says to each prediction and, when asked, whether the guess was right."""
    out.print("\n[bold]The predictions, after this run[/]")
    right = 0
    for number, prediction in enumerate(lab.predictions, 1):
        truth = prediction.truth(results)
        word = {True: "yes", False: "no", None: "not decided"}[truth]
        mark = ""
        if guesses is not None:
            correct = guesses[number - 1] == truth
            right += correct
            mark = " [green](you were right)[/]" if correct else " [red](you thought otherwise)[/]"
        out.print(f"  {number}. {prediction.question}")
        out.print(f"     [bold]{word}[/]{mark}: {prediction.because}")
    if guesses is not None:
        out.print(f"  {right} of {len(guesses)} right")
