"""`python -m labs`: run a lab, list them, look after the machine. `make` calls this."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer
from rich.console import Console

from labs.harness.lab import catalogue
from labs.harness.lab.console import console
from labs.harness.lab.directory import new_run_directory
from labs.harness.lab.options import Options, Unavailable
from labs.harness.lab.options import check as check_options
from labs.harness.report import cli as report_commands
from labs.harness.testbed.launcher import launch

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="the lab's name, see `list`")],
    on: Annotated[str, typer.Option(envvar="ON", help="auto, local, compose, simulation")] = "auto",
    seed: Annotated[str | None, typer.Option(envvar="SEED", help="fixes load and choices")] = None,
    repeat: Annotated[str | None, typer.Option(envvar="REPEAT", help="how many runs")] = None,
    nodes: Annotated[str | None, typer.Option(envvar="NODES", help="how many replicas")] = None,
    predict: Annotated[bool, typer.Option(envvar="PREDICT", help="ask you first")] = False,
) -> None:
    """Run a lab. Exit code 0: pass, 1: fail, 2: inconclusive, invalid, or it could not start."""
    out = console()
    try:
        catalogue.require(name)
        options = check_options(
            on=on,
            seed=seed,
            repeat=repeat,
            nodes=nodes,
            predict=predict,
            kinds=lambda: catalogue.member_kinds(name),
            tell=lambda text: out.print(text, style="dim", markup=False),
        )
    except (ValueError, Unavailable) as error:
        out.print(str(error), markup=False)
        raise typer.Exit(2) from None
    try:
        code = _repeat(name, options, out) if options.repeat > 1 else _run(name, options, out)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left that one could end
        out.print("\ninterrupted: what the run had started is gone")
        # If it came while an import was in exec() (a dataclass being made), CPython has marked it
        # as unhandled, and would end by the signal, not by this code. The next exec() undoes that.
        exec("")
        code = 130
    raise typer.Exit(code)


def _run(name: str, options: Options, out: Console) -> int:
    directory = new_run_directory(name)
    # The zygote imports what the nodes need on the other core while this process imports its own.
    launched = launch(directory) if options.substrate == "local" else None
    try:
        from labs.harness.lab import predict, reporting, runner
        from labs.harness.lab.story import Story

        lab = catalogue.find(name)
        guesses = predict.ask(lab, out) if options.predict else None
        story = Story(out)
        verdict, results = runner.run(lab, options, story, directory, launched)
    finally:
        if launched:
            launched.abandon()
    if verdict.verdict == "pass":
        predict.reveal(lab, results, guesses, out)
    reporting.write_report(directory, story)
    return verdict.exit_code


def _repeat(name: str, options: Options, out: Console) -> int:
    from labs.harness.lab.repeat import repeat

    return repeat(catalogue.find(name), options, out)


@app.command(name="list")
def list_labs() -> None:
    """The labs, one line each."""
    out = console()
    for name in catalogue.names():
        lab = catalogue.find(name)
        numbers = ", ".join(f"Q{number}" for number in lab.questions)
        out.print(f"[bold]make lab-{name:<14}[/] {numbers:<8} {lab.question}", soft_wrap=True)


@app.command()
def doctor() -> None:
    """What is here, what is missing, what to type."""
    from labs.harness.lab.environment import doctor as examine

    raise typer.Exit(examine(console()))


@app.command()
def sweep() -> None:
    """Remove what a killed run left behind: processes, directories, containers, images."""
    from labs.harness.testbed import compose_images, compose_owners, registry

    out = console()
    for line in (*registry.sweep(), *compose_owners.sweep(), *compose_images.sweep()):
        out.print(str(line), markup=False)


@app.command()
def up() -> None:
    """Start store, links, Redis and Kafka for free play (compose.yaml)."""
    from labs.harness.testbed import free_play

    raise typer.Exit(free_play.up(console()))


@app.command()
def observe() -> None:
    """Free play with Prometheus, Grafana and Jaeger beside it, as far as they can be had."""
    from labs.harness.testbed import observe

    raise typer.Exit(observe.start(console()))


@app.command()
def status() -> None:
    """Free play: nodes, roles, who can reach whom."""
    from labs.harness.testbed import free_play

    raise typer.Exit(free_play.status(console()))


@app.command()
def cut(
    src: str, dst: str, kind: Annotated[str, typer.Argument(envvar="FAULT")] = "blackhole"
) -> None:
    """Free play: put a fault on the link from SRC to DST."""
    from labs.harness.testbed import free_play

    raise typer.Exit(free_play.cut(console(), src, dst, kind))


@app.command()
def heal() -> None:
    """Free play: take every fault away."""
    from labs.harness.testbed import free_play

    raise typer.Exit(free_play.heal(console()))


@app.command()
def down() -> None:
    """Free play: remove all of it, data included."""
    from labs.harness.testbed import free_play

    raise typer.Exit(free_play.down(console()))


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def bench(context: typer.Context) -> None:
    """Throughput and latency, as ratios to peers measured in the same run."""
    from labs.harness.bench import main as measure

    raise typer.Exit(measure(context.args))


@app.command(
    # All options, --help among them, are the checkers' own: their names need the checkers' import,
    # which no other command shall wait for.
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": [],
    }
)
def check(context: typer.Context) -> None:
    """Judge anybody's history: `check FILE --model cas-register [--explain]`, more with --help."""
    from labs.harness.checkers.cli import main as judge

    raise typer.Exit(judge(context.args))


@app.command(name="frontier-quorum")
def frontier_quorum(
    runs: Annotated[int, typer.Option(envvar="RUNS", min=2, max=10_000, help="seeds")] = 10,
    seed: Annotated[int, typer.Option(envvar="SEED", min=0, help="the first of them")] = 0,
) -> None:
    """Violations, availability and p99 against R and W, sloppy or strict; a table and a page."""
    from labs.harness.frontier.sweep import sweep as run_all

    out, directory = console(), new_run_directory("frontier-quorum")
    try:
        run_all(range(seed, seed + runs), directory, out)
    except KeyboardInterrupt:
        out.print("\ninterrupted")
        raise typer.Exit(130) from None


app.add_typer(report_commands.app)  # report, logs, traces, compare


if __name__ == "__main__":
    sys.exit(app())
