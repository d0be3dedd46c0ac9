"""The console story: what happens while it happens, then the verdict and the answer.

On a terminal a status line under the story counts operations; in a file or a pipe only the
story's own lines appear, so that a log of CI reads the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from textwrap import dedent

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from labs.harness.lab.verdict import Claim, Verdict

STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow",
          "invalid": "bold yellow"}  # fmt: skip


class Story:
    """Tells one run on `console`. `now` gives the seconds since the variant began."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self.now: Callable[[], float] | None = None
        self._status = console.status("", spinner="dots") if console.is_terminal else None

    def title(self, name: str, questions: list[int], question: str) -> None:
        numbers = ", ".join(str(number) for number in questions)
        self._print(f"[bold]Faultline · {name}[/] · interview question {numbers}")
        self._print(f"[italic]{escape(question)}[/]")

    def note(self, text: str) -> None:
        self._print(f"[dim]{escape(text)}[/]")

    def predictions(self, questions: list[str]) -> None:
        self._print("\nBefore you look, predict:")
        for number, question in enumerate(questions, 1):
            self._print(f"  {number}. {escape(question)}")

    def variant(self, name: str, expected: str, about: str) -> None:
        role = "must hold" if expected == "holds" else "the control: must break"
        self._print(f"\n[bold cyan]{escape(name)}[/] [dim]({role})[/]  {escape(about)}")

    def tell(self, text: str, *, mark: str = " ", style: str = "") -> None:
        at = f"{self.now():6.2f} s" if self.now else " " * 8
        self._row(f"[dim]{at}[/] [{style or 'default'}]{mark}[/]", escape(text), style)

    def fault(self, text: str) -> None:
        self.tell(text, mark="✂", style="bold yellow")

    def story_of(self, sentences: list[str]) -> None:
        """A counterexample, a sentence a line."""
        for sentence in sentences:
            self._row(" " * 10, escape(sentence), "dim")

    def healed(self, text: str) -> None:
        self.tell(text, mark="♥", style="green")

    def claim(self, claim: Claim, expected: str) -> None:
        mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}[
            claim.holds
        ]
        if claim.needs:
            mark, style = "–", "yellow"
        as_it_must = ""
        if expected == "breaks" and claim.control_breaks and claim.holds is False:
            as_it_must, style = " [dim](as the control must)[/]", "magenta"
        text = f"[{style}]{escape(claim.text)}[/]{as_it_must}\n[dim]{escape(claim.evidence)}[/]"
        self._row(f"{'':8} [{style}]{mark}[/]", text)
        self.story_of(claim.counterexample)

    def progress(self, text: str) -> None:
        if self._status is not None and not self.quiet:
            self._status.update(f"[dim]{escape(text)}[/]")
            self._status.start()

    def pause(self) -> None:
        if self._status is not None:
            self._status.stop()

    def verdict(self, verdict: Verdict) -> None:
        self.pause()
        word = f"[{STYLES[verdict.verdict]}]{verdict.verdict.upper()}[/]"
        took = f"{verdict.elapsed_s:.1f} s"
        if verdict.virtual_s is not None:
            took += f" ({verdict.virtual_s:.1f} s of virtual time)"
        self._print(f"\nVerdict {word} in {took}: {escape(verdict.reason)}",
                    always=True)  # fmt: skip

    def comparison(self, variants: list[str], rows: list[tuple[str, ...]]) -> None:
        if not rows:
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2))
        table.add_column("measured in this run", style="dim")
        for name in variants:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        if not self.quiet:
            self.console.print(Padding(table, (1, 0, 0, 0), expand=False), highlight=False)

    def answer(self, text: str) -> None:
        self._print("\n[bold]The 90-second answer[/]")
        for number, paragraph in enumerate(dedent(text).strip().split("\n\n")):
            self._paragraph(escape(" ".join(paragraph.split())), above=min(number, 1))

    def follow_ups(self, follow_ups: Mapping[str, str], misses: str) -> None:
        if follow_ups:
            self._print("\n[bold]They will ask next[/]")
        for question, reply in follow_ups.items():
            self._paragraph(f"[italic]{escape(question)}[/] {escape(reply)}")
        if misses:
            self._print("\n[bold]What the toy leaves out[/]")
            self._paragraph(escape(misses))

    def directory(self, path: str) -> None:
        self._print(f"\n[dim]Evidence:[/] {escape(path)}", always=True)

    def report(self, path: str) -> None:
        self._print(
            f"[dim]Report:[/] {escape(path)}  [dim](make report · make logs · make traces)[/]"
        )

    def error(self, text: str) -> None:
        self.pause()
        self.console.print(f"[bold red]{escape(text)}[/]")

    def _paragraph(self, markup: str, above: int = 0) -> None:
        if not self.quiet:
            self.console.print(Padding(markup, (above, 0, 0, 2), expand=False))

    def _row(self, left: str, right: str, style: str = "") -> None:
        if self.quiet:
            return
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(style=style or None)
        table.add_row(left, right)
        self.console.print(table)

    def _print(self, text: str, *, always: bool = False) -> None:
        if always or not self.quiet:
            self.console.print(text, highlight=False)
