"""Runs a lab: every variant on its substrate, claims decided, verdict written, story told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from inspect import cleandoc
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from labs.harness.history import Recorder
from labs.harness.lab.definition import Lab, Results, Variant
from labs.harness.lab.directory import SHARED, join, near, share, slug
from labs.harness.lab.environment import describe
from labs.harness.lab.options import Options
from labs.harness.lab.stage import InvalidRun, Stage
from labs.harness.lab.story import Story
from labs.harness.lab.verdict import FaultRecord, VariantResult, Verdict, Word, as_plain, decide
from labs.harness.links.control import LinksError
from labs.harness.nemesis import Nemesis, NemesisError, ShapeError
from labs.harness.testbed import orderly
from labs.harness.testbed.cluster import NodeExited, TestbedError, TimedOut
from labs.harness.testbed.description import joined
from labs.harness.testbed.launcher import Launched
from labs.harness.testbed.local import LocalTestbed

if TYPE_CHECKING:
    from labs.harness.testbed.compose import ComposeTestbed
    from labs.harness.testbed.simulation.cluster import SimulatedTestbed

    Testbed = LocalTestbed | ComposeTestbed | SimulatedTestbed

# What makes an experiment worthless without saying anything about the system.
TROUBLE = (InvalidRun, TestbedError, TimedOut, LinksError, NemesisError, ShapeError)


def run(
    lab: Lab, options: Options, story: Story, directory: Path, launched: Launched | None = None
) -> tuple[Verdict, Results]:
    """One run of `lab` into `directory`, from its first process to `verdict.json`.

    `launched`: a zygote that was started earlier, to have it warm by now.
    """
    main = _run(lab, options, story, directory, launched)
    return orderly.run(main, loop_factory=_loop_factory(options))


def _loop_factory(options: Options) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """In a simulation the harness, too, lives in virtual time."""
    if options.substrate != "simulation":
        return None
    from labs.harness.testbed.simulation.cluster import new_loop  # with the service: not cheap

    return partial(new_loop, options.seed)


async def _run(
    lab: Lab, options: Options, story: Story, directory: Path, launched: Launched | None
) -> tuple[Verdict, Results]:
    loop = asyncio.get_running_loop()
    began, loop_began = time.monotonic(), loop.time()
    results: Results = {}
    faults: list[FaultRecord] = []
    async with AsyncExitStack() as stack:
        testbed = _testbed(options, directory, launched)
        await stack.enter_async_context(testbed)
        _introduce(lab, options, story)
        for variants in _rounds(lab, options, story):
            found = await _run_variants(lab, variants, options, story, testbed, directory, faults)
            results |= {result.name: result for result in found}
            if any(_worthless(result) for result in found):
                break  # an experiment that can't be trusted is not worth the other variants' time
    word, reason = decide(list(results.values()), faults)
    verdict = Verdict(
        lab=lab.name,
        questions=list(lab.questions),
        substrate=options.substrate,
        plane=options.plane,
        seed=options.seed,
        verdict=word,
        reason=reason,
        elapsed_s=round(time.monotonic() - began, 3),
        variants=[as_plain(result) for result in results.values()],
        faults=faults,
        environment=describe() | ({"engine": str(options.engine)} if options.engine else {}),
        virtual_s=(
            round(loop.time() - loop_began, 3) if options.substrate == "simulation" else None
        ),
        question=lab.question,
        answer=cleandoc(lab.answer(results)) if word == "pass" else "",
        follow_ups=dict(lab.follow_ups) if word == "pass" else {},
        misses=lab.misses if word == "pass" else "",
        comparison=_comparison(lab, options, results, word),
        compared=list(_compared(lab, results)),
    )
    join(directory, list(results))
    verdict.save(directory)
    _conclude(lab, options, results, verdict, story, directory)
    return verdict, results


def _testbed(options: Options, directory: Path, launched: Launched | None) -> Testbed:
    if options.substrate == "local":
        return LocalTestbed(directory, launched=launched)
    if options.substrate == "simulation":
        from labs.harness.testbed.simulation.cluster import SimulatedTestbed

        return SimulatedTestbed(directory)
    from labs.harness.testbed.compose import ComposeTestbed  # most runs do without

    assert options.engine is not None, "checked with the options"
    return ComposeTestbed(directory, options.engine, plane=options.plane, overlap=True)


def _rounds(lab: Lab, options: Options, story: Story) -> list[list[Variant]]:
    """The variants that run here: one after another, or `together` all at once."""
    wanted = []
    for variant in lab.variants:
        if variant.on and options.substrate not in variant.on:
            story.note(f"left out on {options.substrate}: {variant.name}, {variant.about}")
        else:
            wanted.append(variant)
    return [wanted] if lab.together else [[variant] for variant in wanted]


def _worthless(result: VariantResult) -> bool:
    return result.trouble is not None or (result.crash is not None and not result.may_stop)


async def _run_variants(
    lab: Lab,
    variants: list[Variant],
    options: Options,
    story: Story,
    testbed: Testbed,
    directory: Path,
    faults: list[FaultRecord],
) -> list[VariantResult]:
    """One variant, or several that share a cluster; what spoils that spoils each of them."""
    results = [
        VariantResult(
            name=variant.name,
            expected=variant.expected,
            about=variant.about,
            may_stop=variant.may_stop,
        )
        for variant in variants
    ]
    for variant in variants:
        story.variant(variant.name, variant.expected, variant.about)
    began = time.monotonic()
    trouble: str | None = None
    crash: tuple[str, str] | None = None
    try:
        async with _stage(variants, results, options, story, testbed, directory, faults) as stage:
            try:
                await lab.scenario(stage)
            except TROUBLE:
                crash = _crash(stage)
                raise
    except TROUBLE as error:
        trouble = crash[1] if crash else str(error)
        story.error(trouble)
    finally:
        story.pause()
        story.now = None
    for result in results:
        if crash is not None and crash[0] in result.nodes:  # another variant's node says nothing
            result.crash = crash[1]
        else:
            result.trouble = trouble
        result.elapsed_s = round(time.monotonic() - began, 3)
    return results


def _crash(stage: Stage) -> tuple[str, str] | None:
    """Which node contradicted itself and stopped, if that is behind the trouble; and how."""
    try:
        stage.cluster.check()
    except NodeExited as exited:
        if exited.node in stage.cluster.nodes and exited.own_fault:
            how = f"{exited.node} found itself wrong and stopped: {exited.own_fault}"
            return exited.node, how
    except TestbedError:
        pass
    return None


@asynccontextmanager
async def _stage(
    variants: list[Variant],
    results: list[VariantResult],
    options: Options,
    story: Story,
    testbed: Testbed,
    directory: Path,
    faults: list[FaultRecord],
) -> AsyncIterator[Stage]:
    """Everything a scenario needs, undone in reverse order whatever happens."""
    own = directory / (SHARED if len(variants) > 1 else slug(variants[0].name))
    own.mkdir()
    specs = [variant.cluster(options.nodes) for variant in variants]
    async with AsyncExitStack() as stack:
        for variant, spec in zip(variants, specs, strict=True):
            if len(variants) > 1:
                others = {node for each in specs for node in each.node_names}
                others -= {*spec.node_names}
                stack.callback(share, own, directory / slug(variant.name), others)
        recorder = stack.enter_context(Recorder(own / "history.jsonl", _clock_ns(options)))
        story.now = lambda: recorder.now_ns() / 1e9
        for result in results:  # also of a cluster that does not start: its nodes' times are told
            result.start_ns = recorder.start_ns
        cluster = await stack.enter_async_context(testbed.cluster(joined(specs), directory=own))
        for member, flavour in cluster.member_flavours().items():
            story.note(f"{member}: {flavour}")
        nemesis = Nemesis(
            cluster,
            recorder,
            own / "faults.jsonl",
            random=Random(options.seed),
            enabled=options.nemesis,
        )
        stack.callback(
            lambda: faults.extend(fault for each in variants for fault in _faults_of(each, nemesis))
        )
        stack.callback(nemesis.close)
        stack.push_async_callback(nemesis.heal_all)
        stages = []
        for result, spec in zip(results, specs, strict=True):
            result.members = cluster.member_flavours()
            result.nodes = [node for node in cluster.nodes if node in spec.node_names]
            result.places = list(cluster.clients)
            stage = Stage(
                cluster=cluster,
                recorder=recorder,
                nemesis=nemesis,
                story=story,
                result=result,
                directory=own,
                seed=options.seed,
            )
            stages.append(stage)
        for stage in stages:
            stage.together = tuple(stages)
        yield stages[0]


def _clock_ns(options: Options) -> Callable[[], int]:
    """The clock that the nodes' telemetry has, too: the machine's, or that of the simulation."""
    if options.substrate != "simulation":
        return time.monotonic_ns
    loop = asyncio.get_running_loop()
    return lambda: int(loop.time() * 1e9)


def _faults_of(variant: Variant, nemesis: Nemesis) -> list[FaultRecord]:
    """The nemesis' records as the verdict keeps them. Not looked for is not felt."""
    return [
        FaultRecord(
            variant=variant.name,
            name=record.name,
            target=record.target,
            planned_at=record.planned_at,
            injected_at=record.injected_at,
            felt=record.felt is True,
            recovered=record.recovered is True,
            felt_how=record.felt_how,
            healed_at=record.healed_at,
            recovered_at=record.recovered_at,
        )
        for record in nemesis.records
    ]


def _comparison(lab: Lab, options: Options, results: Results, word: Word) -> list[list[str]]:
    """The rows of figures side by side; none when a variant is missing or can't be trusted."""
    wanted = [each for each in lab.variants if not each.on or options.substrate in each.on]
    if word not in ("pass", "fail") or len(results) < len(wanted):
        return []
    compared = _compared(lab, results)
    return [
        [title, *(text.format_map(results[name].figures) for name in compared)]
        for title, text in lab.comparison
    ]


def _compared(lab: Lab, results: Results) -> tuple[str, ...]:
    return tuple(name for name in lab.compared if name in results) or tuple(results)


def _introduce(lab: Lab, options: Options, story: Story) -> None:
    story.title(lab.name, list(lab.questions), lab.question)
    story.note(
        f"on {options.substrate} ({options.why}) · faults by {options.plane} · "
        f"{options.nodes} nodes · SEED={options.seed}"
    )
    if not options.predict:
        story.predictions([prediction.question for prediction in lab.predictions])


def _conclude(
    lab: Lab, options: Options, results: Results, verdict: Verdict, story: Story, directory: Path
) -> None:
    story.comparison(verdict.compared, [tuple(row) for row in verdict.comparison])
    story.verdict(verdict)
    if verdict.verdict == "pass":
        story.answer(verdict.answer)
        story.follow_ups(lab.follow_ups, lab.misses)
    else:
        story.note(
            f"run it again: make lab-{lab.name} SEED={options.seed} "
            f"ON={options.substrate} FAULTS={options.plane}"
        )
    story.directory(f"{near(directory)}/  (also runs/latest)")
