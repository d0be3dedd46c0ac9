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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import msgspec

from labs.harness.checkers import check_linearizable, check_lost_writes
from labs.harness.history import Recorder, load
from labs.harness.links.fault import Link
from labs.harness.testbed.cluster import NodeExited, TimedOut, until
from labs.harness.testbed.description import kv_cluster
from labs.harness.testbed.simulation.cluster import SimulatedCluster, SimulatedTestbed, new_loop
from services.chassis.errors import Definite, Indefinite, NotFound
from services.kv.client import KvClient
from tests.simulation.service.bugs import BUGS
from tests.simulation.service.plan import CLIENTS, Fault, Operation, Plan, draw

CONVERGE_WITHIN_S = 30.0
DEADLINE_MS = 500
TIMERS = {"KV_TICK_MS": "10", "KV_ELECTION_TICKS": "20", "KV_HEARTBEAT_TICKS": "3"}
TOLD = frozenset({"become_candidate", "become_leader", "become_follower", "truncate", "start"})


@dataclass(frozen=True, slots=True)
class Failure:
    """`promise` that was broken, in words; `story`: the run, line by line, when it was asked for"""

    promise: str
    detail: str
    story: tuple[str, ...] = ()


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
        self._processes = 0
        self._clients = {
            place: KvClient(
                {node: cluster.address(place, node) for node in cluster.nodes},
                random=Random(f"{plan.seed} {place}"),
            )
            for place in CLIENTS
        }

    async def go(self) -> None:
        """Raises AssertionError, TimedOut or NodeExited."""
        for node, disk_ms in zip(self.cluster.nodes, self.plan.disks_ms, strict=True):
            self.cluster.disks[node].synchronize_ms = disk_ms
        work = [self._operate(operation) for operation in self.plan.operations]
        work += [self._strike(fault) for fault in self.plan.faults]
        try:
            await asyncio.gather(*work)
            self.cluster.check()
            await until(self._converged, CONVERGE_WITHIN_S, "healed, all nodes apply the same log")
            keys = dict.fromkeys(each.key for each in self.plan.operations)
            await asyncio.gather(*(self._final_read(key) for key in keys))
            self.cluster.check()
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
                reply = await client.get(key, deadline_ms=DEADLINE_MS)
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

    async def _converged(self) -> bool:
        self.cluster.check()
        statuses = (await self.cluster.statuses()).values()
        if not all(statuses) or len(await self.cluster.primaries()) != 1:
            return False
        return len({(said["applied_index"], said["last_index"]) for said in statuses if said}) == 1

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
        self.cluster.check()
        await self.cluster.kill(node)
        self.cluster.disks[node].lose_unfsynced_writes = False

    async def _start(self, fault: Fault, node: str) -> None:
        self._down[node].remove(fault)
        if not self._down[node] and self.cluster.state(node) == "stopped":
            self.cluster.check()
            await self.cluster.start(node)

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


async def _run(plan: Plan, directory: Path, bug: str) -> None:
    loop = asyncio.get_running_loop()
    environment = TIMERS | dict(plan.environment) | dict(BUGS[bug].environment)
    spec = kv_cluster(plan.nodes, protocol="raft", clients=CLIENTS, environment=environment)
    async with SimulatedTestbed(directory) as testbed:
        with Recorder(directory / "history.jsonl", lambda: int(loop.time() * 1e9)) as recorder:
            async with testbed.cluster(spec, directory) as cluster:
                await Run(plan, cluster, recorder).go()


def simulate(plan: Plan, bug: str = "none", *, tell: bool = False) -> Failure | None:
    """Carry out `plan`; None when every promise was kept. `tell` asks for the story of a failure.

    Any exception is a finding: nothing that a network, a disk or a clock does may raise one.
    """
    with tempfile.TemporaryDirectory(prefix="faultline-sim-") as name, BUGS[bug].planted():
        directory = Path(name)
        failure = _simulate(plan, directory, bug)
        if failure is None or not tell:
            return failure
        return Failure(failure.promise, failure.detail, tuple(_story(plan, directory)))


def run_one(work: tuple[int, str]) -> tuple[int, Failure | None]:
    """`simulate` by names, for another process (which cannot import from a `__main__`)."""
    seed, bug = work
    return seed, simulate(draw(seed), bug)


def _simulate(plan: Plan, directory: Path, bug: str) -> Failure | None:
    try:
        with asyncio.Runner(loop_factory=partial(new_loop, plan.seed)) as runner:
            runner.run(_run(plan, directory, bug))
    except TimedOut as error:
        return Failure("convergence", str(error))
    except NodeExited as error:
        return Failure("a node stays up", str(error))
    except (Definite, Indefinite) as error:
        return Failure("healed, every key can be read", str(error))
    except AssertionError as error:
        return Failure("an assertion", str(error))
    history = load(directory / "history.jsonl")
    lost = check_lost_writes(history)
    order = check_linearizable(history, "register", timeout_s=60)
    for promise, result in (("no acknowledged write is lost", lost), ("linearizable", order)):
        if result.valid is not True:
            why = result.counterexample.sentences if result.counterexample else [str(result.valid)]
            return Failure(promise, " ".join(why))
    return None


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
    for text in (directory / "history.jsonl").read_bytes().splitlines():
        op = msgspec.json.decode(text)
        at_s = op["time"] / 1e9
        value = "" if op["value"] is None else f" {op['value']}"
        said = {"invoke": "asks", "ok": "is told ok", "fail": "is refused", "info": "never learns"}
        who = f"client {op['process']}"
        what = f"{op['f']} {op['key']}{value}"
        answered = f" by {op['node']}" if op.get("node") else ""
        lines.append((at_s, f"{at_s:6.3f} s  {who} {said[op['type']]}: {what}{answered}"))
    return [line for _, line in sorted(lines, key=lambda each: each[0])]
