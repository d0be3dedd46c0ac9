"""`make observe`: Prometheus, Grafana and Jaeger beside free play (profile `observe`).

What they show lies in compose/observe: scrapes and alert rules, data sources, the dashboard. Nodes
are scraped, and send their spans to Jaeger by OTLP.

Each of the three is started if its image can be had, and the others are named with what to type.
Prometheus has a stand-in of the distribution's package (`make images-offline`); where there is
neither, a `prometheus` of this machine runs in the foreground.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from pathlib import Path

import aiohttp
from rich.console import Console

from labs.harness.testbed import compose_engine, compose_images, free_play
from labs.harness.testbed.compose_engine import NoEngine
from labs.harness.testbed.compose_images import NoImages
from labs.harness.testbed.compose_project import ROOT
from labs.harness.testbed.description import MemberSpec
from labs.harness.testbed.members import prometheus
from labs.harness.testbed.waiting import TimedOut, until

FILES = ROOT / "compose" / "observe"
OTLP = "http://jaeger:4318"
READY_WITHIN_S = 60.0
# Of each: the variable of its port, the port, where it says that it is ready, and what it shows.
VIEWERS = {
    "prometheus": ("PROMETHEUS_PORT", 9090, "/-/ready", "metrics, alerts"),
    "grafana": ("GRAFANA_PORT", 3000, "/api/health", "the dashboard"),
    "jaeger": ("JAEGER_PORT", 16686, "/", "traces"),
}


def url(viewer: str) -> str:
    """Where it answers on this machine."""
    variable, port, _, _ = VIEWERS[viewer]
    return f"http://127.0.0.1:{os.environ.get(variable) or port}"


def images(out: Console) -> tuple[dict[str, str], dict[str, str]]:
    """The images that can be had, by viewer; and of the others, why not."""
    here: dict[str, str] = {}
    missing: dict[str, str] = {}
    for viewer in VIEWERS:
        try:
            here[viewer] = compose_images.base(viewer, tell=out.print)
        except NoImages as error:
            missing[viewer] = str(error).partition("; type:")[0]
    return here, missing


def settings(here: dict[str, str]) -> dict[str, str]:
    """What compose.yaml takes from the environment."""
    named = {f"{viewer.upper()}_IMAGE": image for viewer, image in here.items()}
    return {
        **named,
        "COMPOSE_PROFILES": ",".join(here),
        **({"FAULTLINE_OTLP": OTLP} if "jaeger" in here else {}),
    }


def start(out: Console) -> int:
    """Start free play with what there is to look at it; 2 with a message when that can't be."""
    try:
        compose_engine.find()
    except NoEngine as error:
        out.print(f"{error}; type: {error.remedy}", markup=False)
        return free_play.UNAVAILABLE
    here, missing = images(out)
    if code := free_play.up(out, settings(here)):
        return code
    try:
        asyncio.run(_wait_for(tuple(here)))
    except TimedOut as error:
        out.print(f"{error}; see make logs", markup=False)
        return 1
    for viewer in here:
        out.print(f"{viewer:<11} {url(viewer)}  {VIEWERS[viewer][3]}", highlight=False)
    for viewer, why in missing.items():
        out.print(
            f"{viewer:<11} not here: {why}; with an image of yours: "
            f"make observe {viewer.upper()}_IMAGE=<name>",
            highlight=False,
            markup=False,
        )
    return _of_this_machine(out) if "prometheus" in missing else 0


async def _wait_for(viewers: tuple[str, ...]) -> None:
    async with aiohttp.ClientSession() as session:

        async def answers(viewer: str) -> bool:
            timeout = aiohttp.ClientTimeout(total=2.0)
            try:
                path = url(viewer) + VIEWERS[viewer][2]
                async with session.get(path, timeout=timeout) as response:
                    return response.status == 200
            except (aiohttp.ClientError, TimeoutError, OSError):
                return False

        async def all_answer() -> bool:
            return all(await asyncio.gather(*map(answers, viewers)))

        await until(all_answer, READY_WITHIN_S, f"{', '.join(viewers)} answer")


def _of_this_machine(out: Console) -> int:
    """Run the distribution's Prometheus against free play until Ctrl-C; its data go with it."""
    binary = prometheus.find()
    if not binary:
        out.print(
            f"prometheus  for one without an image type {prometheus.REMEDY}, or "
            f"{compose_images.REMEDY} for a stand-in; then make observe again",
            highlight=False,
        )
        return free_play.UNAVAILABLE
    targets = {
        node: f"127.0.0.1:{free_play.port(number)}"
        for number, node in enumerate(free_play.NODES, 1)
    }
    with tempfile.TemporaryDirectory(prefix="faultline-prometheus-") as name:
        directory = Path(name)
        rules = (FILES / "rules.yml").read_text()
        (directory / "rules.yml").write_text(rules)
        file = directory / prometheus.CONFIGURATION
        member = MemberSpec("prometheus", "prometheus", files={"rules.yml": rules})
        file.write_text(prometheus.configuration(targets, member))
        address = url("prometheus").removeprefix("http://")
        command = [binary, f"--config.file={file}", f"--storage.tsdb.path={directory / 'tsdb'}"]
        command += [f"--web.listen-address={address}", "--log.level=warn"]
        out.print(f"prometheus  {url('prometheus')}  {binary}, until Ctrl-C", highlight=False)
        return _foreground(command)


def _foreground(command: list[str]) -> int:
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:  # the terminal has told it, too
        return 0
    finally:
        process.terminate()
        try:
            process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
