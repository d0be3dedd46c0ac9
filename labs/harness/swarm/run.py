"""Carry out a plan: the whole service in the simulation, then heal it all and judge.

Goal: a failure names what was broken, and the plan and the seed that break it again.
Method: safety while faults strike (every operation goes into a history), then liveness: all is
healed, and within `CONVERGE_WITHIN_S` of virtual time one node must lead, all must have applied
the same log, and every key must be readable. Then the history is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec

from labs.harness.checkers import check_linearizable, check_lost_writes
from labs.harness.history import Recorder, load
from labs.harness.links.fault import Link
from labs.harness.swarm.bug import SHIPPED, Bug
from labs.harness.swarm.plan import CLIENTS, Fault, Operation, Plan
from labs.harness.testbed.cluster import NodeExited, TimedOut, applied_alike, until
from labs.harness.testbed.description import kv_cluster
from labs.harness.testbed.errors import EXIT_STORAGE
from labs.harness.testbed.simulation.cluster import SimulatedCluster, SimulatedTestbed, new_loop
from services.chassis.errors import Definite, Indefinite, NotFound
from services.kv.client import KvClient

HISTORY = "history.jsonl"
CONVERGE_WITHIN_S = 30.0
TELLING = ("role", "term", "leader", "applied_index", "last_index")
DEADLINE_MS = 500
TIMERS = {"KV_TICK_MS": "10", "KV_ELECTION_TICKS": "20", "KV_HEARTBEAT_TICKS": "3"}
SILENT, ALOUD = {"KV_TELEMETRY": ""}, dict[str, str]()  # the testbed names a file by itself
TOLD = frozenset({"become_candidate", "become_leader", "become_follower", "truncate", "start"})


@dataclass(frozen=True, slots=True)
class Failure:
    """`promise` that was broken. `trace`: a digest of all that nodes and clients told, with
    the times. `story`: the run, line by line, when it was asked for.
    """

    promise: str
    detail: str
    trace: str
    story: tuple[str, ...] = ()


class NotConverged(Exception):
    """Healed, and yet the nodes do not come to the same end of one log."""


class Run:
    """One plan on its way."""

    def __init__(self, plan: Plan, cluster: SimulatedCluster, recorder: Recorder) -> None:
        self.plan = plan
        self.cluster = cluster
        self.recorder = recorder
        self.began = asyncio.get_running_loop().time()
        self._links: dict[Link, list[Fault]] = {}
        self._down: dict[str, list[Fault]] = {node: [] for node in cluster.nodes}
        self._paused: dict[str, list[Fault]] = {node: [] for node in cluster.nodes}
        self._failed_disks: set[str] = set()  # ever: a node takes a while to stop
        self._bad_disks: dict[str, list[Fault]] = {node: [] for node in cluster.nodes}
        self._processes = 0
        self._clients = {
            place: KvClient(
                {node: cluster.address(place, node) for node in cluster.nodes},
                random=Random(f"{plan.seed} {place}"),
            )
            for place in CLIENTS
        }

    async def go(self) -> str:
        """Which nodes ended with different states, if any.

        Raises AssertionError, NotConverged or NodeExited.
        """
        for node, disk_ms in zip(self.cluster.nodes, self.plan.disks_ms, strict=True):
            self.cluster.disks[node].synchronize_ms = disk_ms
        work = [self._operate(operation) for operation in self.plan.operations]
        work += [self._strike(fault) for fault in self.plan.faults]
        try:
            await asyncio.gather(*work)
            await self._check()
            different = await self._converge()
            keys = dict.fromkeys(each.key for each in self.plan.operations)
            await asyncio.gather(*(self._final_read(key) for key in keys))
            await self._check()
            return different
        finally:
            await asyncio.gather(*(client.close() for client in self._clients.values()))

    async def _until(self, at_s: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self.began + at_s - loop.time()))

    # ------------------------------------------------------------------ operations

    async def _operate(self, operation: Operation) -> None:
        await self._until(operation.at_s)
        client, key = self._clients[operation.place], operation.key
        self._processes += 1
        handle = self.recorder.invoke(
            self._processes, operation.f, key, operation.value, client=operation.place
        )
        try:
            if operation.f == "read":
                consistency = "lease" if operation.lease else "linearizable"
                reply = await client.get(key, consistency=consistency, deadline_ms=DEADLINE_MS)
                self.recorder.ok(handle, value=reply.value, node=reply.node)
            else:
                reply = await client.put(key, operation.value, deadline_ms=DEADLINE_MS)
                self.recorder.ok(handle, node=reply.node)
        except NotFound:
            self.recorder.ok(handle, value=None)
        except Definite as error:
            self.recorder.fail(handle, error=str(error))
        except Indefinite as error:
            (self.recorder.fail if operation.f == "read" else self.recorder.info)(
                handle, error=str(error)
            )

    async def _final_read(self, key: str) -> None:
        self._processes += 1
        handle = self.recorder.invoke(self._processes, "read", key, None, final=True)
        value = None
        with contextlib.suppress(NotFound):
            reply = await self._clients[CLIENTS[0]].get(key, deadline_ms=10_000)
            value = reply.value
        self.recorder.ok(handle, value=value)

    async def _converge(self) -> str:
        """Who holds which state, if they differ."""
        try:
            what = "healed, all nodes apply the same log"
            states = await until(self._converged, CONVERGE_WITHIN_S, what)
        except TimedOut as error:
            words = [str(error).partition(";")[0]]
            for node, said in (await self.cluster.statuses()).items():
                fields = [f"{key} {said.get(key)}" for key in TELLING] if said else ["silent"]
                words.append(" ".join((node, self.cluster.state(node), *fields)))
            raise NotConverged("; ".join(words)) from None
        held = ", ".join(f"{node} {digest}" for node, digest in states.items())
        return held if len(set(states.values())) > 1 else ""

    async def _converged(self) -> dict[str, str]:
        """A digest of each node's state, once all have applied what the leader has."""
        await self._check()
        return applied_alike(await self.cluster.statuses())

    async def _check(self) -> None:
        """A node may stop by itself if its disk failed it, and no other. Raises NodeExited."""
        while True:
            try:
                self.cluster.check()
            except NodeExited as exited:
                if exited.exit_code != EXIT_STORAGE or exited.node not in self._failed_disks:
                    raise
                await self.cluster.kill(exited.node)  # noted: it is down
                await self._revive(exited.node)
            else:
                return

    async def _revive(self, node: str) -> None:
        """Start a node that is down, once nothing keeps it down."""
        held = self._down[node] or self._bad_disks[node]
        if not held and self.cluster.state(node) == "stopped":
            await self.cluster.start(node)

    # ------------------------------------------------------------------ faults

    async def _strike(self, fault: Fault) -> None:
        """One fault, from its beginning to its end. A later one on the same link covers it."""
        await self._until(fault.at_s)
        if fault.kind == "links":
            for link in fault.links:
                self._links.setdefault(Link(*link), []).append(fault)
            await self._set_links(fault)
            await self._until(fault.at_s + fault.for_s)
            for link in fault.links:
                self._links[Link(*link)].remove(fault)
            await self._set_links(fault)
        elif fault.kind in ("power", "kill"):
            await self._each(fault, self._kill)
            for number, node in enumerate(fault.nodes, 1):
                in_turn = number if fault.kind == "power" else 1
                await self._until(fault.at_s + fault.for_s * in_turn)
                await self._start(fault, node)
        elif fault.kind in ("full", "fsync"):
            await self._each(fault, self._break_disk)
            await self._until(fault.at_s + fault.for_s)
            await self._each(fault, self._repair_disk)
        elif fault.kind == "pause":
            await self._each(fault, self._pause)
            await self._until(fault.at_s + fault.for_s)
            await self._each(fault, self._resume)
        else:
            await self._each(fault, self._clock)
            await self._until(fault.at_s + fault.for_s)

    async def _each(self, fault: Fault, act: Callable[[Fault, str], Awaitable[None]]) -> None:
        for node in fault.nodes:
            await act(fault, node)

    async def _set_links(self, fault: Fault) -> None:
        rules = {Link(*link): self._links[Link(*link)] for link in fault.links}
        await self.cluster.link_control.set(
            {link: stack[-1].fault if stack else None for link, stack in rules.items()}
        )

    async def _kill(self, fault: Fault, node: str) -> None:
        self._down[node].append(fault)
        if fault.kind == "power":
            self.cluster.lose_unfsynced_writes(node)
        await self._check()
        await self.cluster.kill(node)
        self.cluster.disks[node].lose_unfsynced_writes = False

    async def _start(self, fault: Fault, node: str) -> None:
        await self._check()
        self._down[node].remove(fault)
        await self._revive(node)

    async def _break_disk(self, fault: Fault, node: str) -> None:
        self._failed_disks.add(node)
        self._bad_disks[node].append(fault)
        self._set_disk(node)

    async def _repair_disk(self, fault: Fault, node: str) -> None:
        self._bad_disks[node].remove(fault)
        self._set_disk(node)
        await self._check()
        await self._revive(node)

    def _set_disk(self, node: str) -> None:
        kinds = {fault.kind for fault in self._bad_disks[node]}
        self.cluster.disks[node].full = "full" in kinds
        self.cluster.disks[node].failing = "fsync" in kinds

    async def _pause(self, fault: Fault, node: str) -> None:
        self._paused[node].append(fault)
        if self.cluster.state(node) == "running":
            await self.cluster.pause(node)

    async def _resume(self, fault: Fault, node: str) -> None:
        self._paused[node].remove(fault)
        if not self._paused[node] and self.cluster.state(node) == "paused":
            await self.cluster.resume(node)

    async def _clock(self, fault: Fault, node: str) -> None:
        """As far as it can be reached; a restart sets it right again."""
        setting = {"rate": fault.amount} if fault.kind == "drift" else {"offset_ms": fault.amount}
        if self.cluster.state(node) == "running":
            with contextlib.suppress(Exception):  # a node may go down while it is asked
                await self.cluster.set_clock(node, **setting)


async def _run(plan: Plan, directory: Path, bug: Bug, telemetry: Mapping[str, str]) -> str:
    loop = asyncio.get_running_loop()
    environment = TIMERS | dict(plan.environment) | dict(bug.environment) | dict(telemetry)
    spec = kv_cluster(plan.nodes, protocol=plan.protocol, clients=CLIENTS, environment=environment)
    async with SimulatedTestbed(directory) as testbed:
        with Recorder(directory / HISTORY, lambda: int(loop.time() * 1e9)) as recorder:
            async with testbed.cluster(spec, directory) as cluster:
                return await Run(plan, cluster, recorder).go()


def simulate(plan: Plan, bug: Bug = SHIPPED, *, tell: bool = False) -> Failure | None:
    """Carry out `plan`; None when every promise was kept. `tell` asks for the story of a failure.

    Any exception is a finding: nothing that a network, a disk or a clock does may raise one.

    Nearly every run keeps its promises, and then nobody asks what the nodes told: a tenth of a
    run. So they tell nothing at first, and a plan that fails is carried out once more, aloud.
    """
    if not tell and _attempt(plan, bug, SILENT) is None:
        return None
    failure = _attempt(plan, bug, ALOUD, tell=tell)
    assert tell or failure is not None, f"{plan} fails, but not when its nodes tell about it"
    return failure


def _attempt(
    plan: Plan, bug: Bug, telemetry: Mapping[str, str], *, tell: bool = False
) -> Failure | None:
    with tempfile.TemporaryDirectory(prefix="faultline-sim-") as name, bug.planted():
        directory = Path(name)
        broken = carry_out(plan, directory, bug, telemetry=telemetry)
        if broken is None:
            return None
        story = tuple(_story(plan, directory)) if tell else ()
        return Failure(*broken, _digest(directory), story)


def carry_out(
    plan: Plan, directory: Path, bug: Bug = SHIPPED, *, telemetry: Mapping[str, str]
) -> tuple[str, str] | None:
    """The promise that was broken, and what shows it. `directory` gets the history, and, of nodes
    with `telemetry`, their events."""
    try:
        with asyncio.Runner(loop_factory=partial(new_loop, plan.seed)) as runner:
            different = runner.run(_run(plan, directory, bug, telemetry))
    except NotConverged as error:
        return "convergence", str(error)
    except NodeExited as error:
        fault = error.own_fault
        return "a node stays up", f"{error.node} stopped: {fault}" if fault else str(error)
    except (Definite, Indefinite) as error:
        return "healed, every key can be read", str(error)
    except AssertionError as error:
        return "an assertion", str(error)
    history = load(directory / HISTORY)
    lost = check_lost_writes(history)
    order = check_linearizable(history, "register", timeout_s=60)
    for promise, result in (("no acknowledged write is lost", lost), ("linearizable", order)):
        if result.valid is not True:
            why = result.counterexample.sentences if result.counterexample else [str(result.valid)]
            return promise, " ".join(why)
    return ("nodes that applied the same log hold the same state", different) if different else None


def _digest(directory: Path) -> str:
    """Of every event of every node, and of every operation."""
    digest = sha256()
    for path in sorted((*directory.glob("*.events.jsonl"), directory / HISTORY)):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _story(plan: Plan, directory: Path) -> list[str]:
    """Faults, what the nodes told, and what clients asked and heard, in the order of time."""
    lines = [(fault.at_s, f"{fault}") for fault in plan.faults]
    start_ns: int | None = None
    for path in sorted(directory.glob("*.events.jsonl")):
        for text in path.read_bytes().splitlines():
            event = msgspec.json.decode(text)
            start_ns = event["monotonic_ns"] if start_ns is None else start_ns
            if event["event"] in TOLD:
                at_s = event["monotonic_ns"] / 1e9 - 1_000
                fields = {
                    key: value for key, value in event.items() if key in ("term", "leader", "from")
                }
                words = " ".join(f"{key} {value}" for key, value in fields.items())
                lines.append((at_s, f"{at_s:6.3f} s  {event['node']}: {event['event']} {words}"))
    for text in (directory / HISTORY).read_bytes().splitlines():
        op = msgspec.json.decode(text)
        at_s = op["time"] / 1e9
        value = "" if op["value"] is None else f" {op['value']}"
        said = {"invoke": "asks", "ok": "is told ok", "fail": "is refused", "info": "never learns"}
        who = f"client {op['process']}"
        what = f"{op['f']} {op['key']}{value}"
        answered = f" by {op['node']}" if op.get("node") else ""
        lines.append((at_s, f"{at_s:6.3f} s  {who} {said[op['type']]}: {what}{answered}"))
    return [line for _, line in sorted(lines, key=lambda each: each[0])]
