"""`make up`, `status`, `cut`, `heal`, `logs`, `down`: the whole of compose.yaml, outside a lab.

Nothing is judged here: it is for looking around with curl, redis-cli and one's own clients. Data
goes with `make down`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from labs.harness.links.control import Link, LinkFault, Links, LinksError
from labs.harness.testbed import compose_engine, compose_images
from labs.harness.testbed.compose_engine import NoEngine
from labs.harness.testbed.compose_images import NoImages
from labs.harness.testbed.compose_project import ROOT, Images
from labs.harness.testbed.waiting import TimedOut, until

NODES = tuple(f"n{number}" for number in range(1, 6))
ANSWER_WITHIN_S = 1.0
READY_WITHIN_S = 30.0
BROKERS = ("1", "3")
UNAVAILABLE = 2
NOTHING: Mapping[str, str] = MappingProxyType({})


def project() -> str:
    return os.environ.get("COMPOSE_PROJECT_NAME") or "faultline"


def port(number: int) -> int:
    """Of the nodes and links: `number` (1 … 999) behind the prefix that is set."""
    return int(os.environ.get("PORT_PREFIX") or "8") * 1000 + number


def environment(brokers: str, images: Images) -> dict[str, str]:
    """What compose.yaml takes from the environment. With three brokers two must have a record."""
    settings = {
        "FAULTLINE_IMAGE": images.service,
        **{f"{kind.upper()}_IMAGE": image for kind, image in images.members.items()},
    }
    if brokers == "3":
        settings |= {
            "KAFKA_VOTERS": "1@kafka:9093,2@kafka-2:9093,3@kafka-3:9093",
            "KAFKA_REPLICAS": "3",
            "KAFKA_IN_SYNC": "2",
            "COMPOSE_PROFILES": "brokers",
        }
    return settings


def up(out: Console, more: Mapping[str, str] = NOTHING) -> int:
    """Start everything and wait for the nodes; 2 with a message when that can't be.

    `more`: further variables of compose.yaml; their COMPOSE_PROFILES are started as well.
    """
    brokers = os.environ.get("BROKERS") or "1"
    if brokers not in BROKERS:
        out.print(f"BROKERS={brokers} is not allowed: {' or '.join(BROKERS)}", markup=False)
        return UNAVAILABLE
    try:
        compose_engine.find()
        images = compose_images.prepare(("redis", "kafka"), tell=out.print)
    except NoEngine as error:
        out.print(f"{error}; type: {error.remedy}", markup=False)
        return UNAVAILABLE
    except NoImages as error:
        out.print(str(error), markup=False)
        return UNAVAILABLE
    began = time.monotonic()
    settings = environment(brokers, images)
    profiles = [each["COMPOSE_PROFILES"] for each in (settings, more) if "COMPOSE_PROFILES" in each]
    settings |= {**more, "COMPOSE_PROFILES": ",".join(profiles)}
    code = _compose("--progress", "quiet", "up", "--detach", "--no-build", settings=settings)
    if code:
        return code
    try:
        asyncio.run(_wait_for_nodes())
    except TimedOut as error:
        out.print(f"{error}; see make logs", markup=False)
        return 1
    out.print(f"five nodes answer, {time.monotonic() - began:.1f} s after `up`", highlight=False)
    return status(out)


def down(out: Console) -> int:
    """Remove all of it, data included."""
    code = _compose(
        "--progress",
        "quiet",
        "--profile",
        "*",
        "down",
        "--volumes",
        "--timeout",
        "1",
        "--remove-orphans",
    )
    if code == 0:
        out.print("stopped and removed")
    return code


def logs() -> int:
    """The logs of all containers."""
    return _compose("--profile", "*", "logs", "--no-color", "--timestamps", "--tail", "200")


def is_up() -> bool:
    """Does a container of the free play run?"""
    label = f"label=com.docker.compose.project={project()}"
    try:
        found = subprocess.run(
            ["docker", "ps", "--quiet", "--filter", label],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(found.stdout.strip())


def status(out: Console) -> int:
    """Who leads, who can reach whom, what is cut."""
    return asyncio.run(_status(out))


def cut(out: Console, src: str, dst: str, kind: str) -> int:
    """Put a fault on one link."""
    try:
        fault = LinkFault(kind)  # type: ignore[arg-type]
    except ValueError as error:
        out.print(str(error), markup=False)
        return UNAVAILABLE
    return asyncio.run(_set(out, [Link(src, dst)], fault))


def heal(out: Console) -> int:
    """Take every fault away."""
    return asyncio.run(_set(out, None, None))


def _compose(*words: str, settings: Mapping[str, str] | None = None) -> int:
    command = ["docker", "compose", "--project-directory", str(ROOT), *words]
    names = {"COMPOSE_PROJECT_NAME": project()}
    try:
        done = subprocess.run(
            command, env={**os.environ, **names, **(settings or {})}, check=False, cwd=ROOT
        )
    except FileNotFoundError:
        return UNAVAILABLE
    return done.returncode


async def _wait_for_nodes() -> None:
    async with aiohttp.ClientSession() as session:

        async def all_ready() -> bool:
            asked = (_get(session, node, "/health/ready") for node in NODES)
            return all(await asyncio.gather(*asked))

        await until(all_ready, READY_WITHIN_S, "five nodes are ready")


async def _get(session: aiohttp.ClientSession, node: str, path: str) -> dict[str, Any] | None:
    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
    url = f"http://127.0.0.1:{port(NODES.index(node) + 1)}{path}"
    try:
        async with session.get(url, timeout=timeout) as response:
            said = await response.json()
            return said if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


async def _status(out: Console) -> int:
    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(*(_get(session, node, "/status") for node in NODES))
    said = dict(zip(NODES, answers, strict=True))
    faults = await _faults()
    if faults is None and not any(answers):
        out.print("nothing runs; type: make up")
        return 1
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("node", "role", "term", "commit", *(f"→ {node}" for node in NODES)):
        table.add_column(title)
    for node in NODES:
        table.add_row(*_row(node, said[node], faults or {}))
    out.print(table)
    out.print("→ n: ✓ connected, – not, · itself; ✂ the fault of that link", style="dim")
    others = [f"{link} {fault}" for link, fault in (faults or {}).items() if link.dst not in NODES
              or link.src not in NODES]  # fmt: skip
    if others:
        out.print(f"also: {', '.join(others)}", highlight=False)
    return 0


def _row(node: str, said: dict[str, Any] | None, faults: Mapping[Link, LinkFault]) -> Iterable[str]:
    """One node's line: its own words, and the faults of the links that it opens."""
    if said is None:
        return (node, "no answer", "", "", *("" for _ in NODES))
    reach = []
    for peer in NODES:
        if peer == node:
            reach.append("·")
        elif fault := faults.get(Link(node, peer)):
            reach.append(f"✂ {fault}")
        else:
            link = said["peers"].get(peer, {})
            reach.append("✓" if link.get("connected") and not link.get("stalled") else "–")
    numbers = (said.get("term", said.get("epoch", "")), said.get("commit_index", ""))
    return (node, str(said.get("role", "")), *map(str, numbers), *reach)


async def _faults() -> dict[Link, LinkFault] | None:
    """What is cut now; None when the proxies do not answer."""
    try:
        async with await Links.connect("127.0.0.1", port(100), within_s=2.0) as links:
            stats = await links.stats()
    except LinksError:
        return None
    return {link: each.fault for link, each in stats.items() if each.fault is not None}


async def _set(out: Console, wanted: list[Link] | None, fault: LinkFault | None) -> int:
    try:
        async with await Links.connect("127.0.0.1", port(100), within_s=2.0) as links:
            known = await links.stats()
            chosen = list(known) if wanted is None else wanted
            if unknown := [str(link) for link in chosen if link not in known]:
                sources = sorted({link.src for link in known})
                out.print(f"no such link: {unknown[0]}; links go from {', '.join(sources)}")
                return UNAVAILABLE
            await links.set(dict.fromkeys(chosen, fault))
    except LinksError as error:
        out.print(f"{error}\nnothing runs? type: make up", markup=False)
        return UNAVAILABLE
    out.print("healed" if fault is None else f"{chosen[0]}: {fault}", highlight=False)
    return 0
