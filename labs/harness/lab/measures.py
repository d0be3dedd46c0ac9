"""What an operation costs, from the nodes' own telemetry and the clients' history.

Messages: every frame that a node sends is told with its time and the types in it, and so is its
arrival. Operations that were sent one at a time part the messages among them. What would have been
sent anyway, heartbeats, comes every few tens of milliseconds and so with few of these operations:
the *median* of each type leaves it out, also where a heartbeat and a proposal are of the same type
(Raft, Paxos).

Round trips: messages between nodes are made slower by a known time, and the operations become
slower by so many times the way there and back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, Literal

import msgspec

from labs.harness.lab.stage import Stage
from labs.harness.report.data import Message
from labs.harness.report.events import Wide, read
from labs.harness.report.messages import join
from labs.harness.workloads.one_at_a_time import OneAtATime
from labs.harness.workloads.register import Done

AT_ONCE_US = 10_000
"""What one node says again and again, and comes within so short a time, was held on the way."""


async def what_it_costs(stage: Stage, alone: OneAtATime, *, one_way_ms: float) -> None:
    """Measure a write and a read of `alone`, which runs: messages between nodes, round trips.

    Leaves the figures `write_messages`, `write_trips`, `read_messages` and `read_trips`.
    """

    async def some(f: Literal["write", "read"], count: int) -> list[Done]:
        alone.f, since = f, stage.now_ns()
        await stage.require(lambda: len(alone.acknowledged(f, since_ns=since)) >= count,
                            within_s=20, what=f"{count} times a {f}")  # fmt: skip
        return alone.acknowledged(f, since_ns=since)

    leader = await stage.primary()
    goal = max(await applied(stage)) + 1
    await stage.require(lambda: level(stage, goal), within_s=20, what="all nodes take part")
    quick = {"write": await some("write", 15), "read": await some("read", 15)}
    links = [link for link in stage.cluster.links
             if leader in link and link.src in stage.cluster.nodes]  # fmt: skip
    slow = stage.nemesis.delay(links, time_ms=one_way_ms)
    words = f"{one_way_ms:g} ms more each way between {leader} and the others"
    async with stage.fault(slow, words):
        slowed = {"write": await some("write", 3), "read": await some("read", 3)}
    for f, operations in quick.items():
        messages = messages_per_operation(stage, operations)
        trips = (least_ms(slowed[f]) - least_ms(operations)) / (2 * one_way_ms)
        stage.figures(**{f"{f}_messages": sum(messages.values()), f"{f}_trips": trips})
        kinds = ", ".join(f"{count} {name}" for name, count in messages.items())
        stage.tell(f"a {f}: {kinds}; {trips:.1f} round trips")


async def applied(stage: Stage) -> list[int]:
    """Up to which entry of the log each node has applied it; 0 for one that does not say."""
    statuses = (await stage.cluster.statuses()).values()
    return [status["applied_index"] if status else 0 for status in statuses]


async def lacks(stage: Stage, node: str, entries: int) -> bool:
    """Has any node applied so many entries more than `node` has in its log?"""
    status = await stage.cluster.status(node)
    return status is not None and max(await applied(stage)) >= status["last_index"] + entries


async def level(stage: Stage, goal: int) -> bool:
    """Have all nodes applied the log up to `goal`?"""
    return min(await applied(stage)) >= goal


async def alike(stage: Stage) -> bool:
    """Do all nodes of a store without a leader have the same? (Each keeps every key.)"""
    statuses = (await stage.cluster.statuses()).values()
    return all(statuses) and len({status["digest"] for status in statuses if status}) == 1


def messages_per_operation(stage: Stage, operations: Sequence[Done]) -> dict[str, int]:
    """Messages between nodes for one of these, by type: they were sent one at a time, in order.

    A message of the node that serves them belongs to the operation that is under way. One of
    another node belongs to that of the message its sender has last had from the serving node, for
    it may come when the next operation has begun: a majority answers first. The slower half of the
    operations is left out, and so is the last, whose end nobody marks.
    """
    serving = operations[0].node
    begins = [op.invoke_ns // 1000 for op in operations]
    told = (each[0] for node in stage.cluster.nodes
            for each in read(stage.cluster.telemetry(node)) if each)  # fmt: skip
    came: dict[str, list[tuple[int, int]]] = defaultdict(list)  # to whom: (when, sent when)
    found: dict[int, Counter[str]] = defaultdict(Counter)
    messages = join((wide for wide in told if wide.sent or wide.received), stage.recorder.start_ns)
    for message in messages:
        if message.src == serving and message.received_us is not None:
            came[message.dst].append((message.received_us, message.sent_us))
    for times in came.values():
        times.sort()
    for message in messages:
        cause_us = message.sent_us
        if message.src != serving:
            at = bisect_left(came[message.src], (message.sent_us + 1, 0)) - 1
            cause_us = came[message.src][at][1] if at >= 0 else 0
        found[bisect_right(begins, cause_us) - 1] += _by_type(message)
    took = sorted((op.return_ns - op.invoke_ns, at) for at, op in enumerate(operations[:-1]))
    quick = [found[at] for _, at in took[: (len(took) + 1) // 2]]
    usual = {name: round(median(each[name] for each in quick)) for name in set().union(*quick)}
    return {name: count for name, count in sorted(usual.items()) if count}


def _by_type(message: Message) -> Counter[str]:
    """A frame names each of its types once; what there is more, it has of the first."""
    names = message.names.split("+")
    types = Counter(names)
    types[names[0]] += message.messages - len(names)
    return types


def least_ms(operations: Iterable[Done]) -> float:
    """How long the quickest took, in ms: what a busy machine adds is not the protocol's."""
    return min(op.return_ns - op.invoke_ns for op in operations) / 1e6


def first_after_s(operations: Iterable[Done], since_ns: int) -> float:
    """Seconds from `since_ns` to the first acknowledged write sent after it; NaN for none."""
    ends = [op.return_ns for op in operations
            if op.type == "ok" and op.f != "read" and op.invoke_ns >= since_ns]  # fmt: skip
    return (min(ends) - since_ns) / 1e9 if ends else float("nan")


class Tail:
    """What nodes have told so far, read as they tell it."""

    def __init__(self, stage: Stage) -> None:
        self._start_ns = stage.recorder.start_ns
        self._read_to = {stage.cluster.telemetry(node): 0 for node in stage.cluster.nodes}
        self._events: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def named(self, *names: str, since_ns: int = 0) -> list[dict[str, Any]]:
        """Events of these names from `since_ns` on, of all nodes, by time."""
        self._read_on()
        since_ns += self._start_ns
        found = (event for name in names for event in self._events[name]
                 if event["monotonic_ns"] >= since_ns)  # fmt: skip
        return sorted(found, key=lambda event: int(event["monotonic_ns"]))

    def heard(self, node: str, name: str, *, since_ns: int) -> Counter[str]:
        """How often a message of this type has come to `node` from each other one.

        What was held on the way and comes all at once counts as one.
        """
        frames = [msgspec.convert(each, Wide) for each in self.named("frames", since_ns=since_ns)]
        came, next_us = Counter[str](), defaultdict[str, int](lambda: since_ns // 1000)
        for message in join(frames, self._start_ns):
            at_us, src = message.received_us, message.src
            if message.dst != node or name not in message.names.split("+") or at_us is None:
                continue
            if at_us >= next_us[src]:
                came[src] += 1
                next_us[src] = at_us + AT_ONCE_US
        return came

    def led(self, node: str, *, since_ns: int) -> int | None:
        """The last entry in the log of `node` when it became leader; None: it did not."""
        found = self.named("become_leader", since_ns=since_ns)
        return next((event["last_index"] for event in found if event["node"] == node), None)

    def refused(self, node: str, voters: Iterable[str], *, since_ns: int) -> bool:
        """Did `voters` not elect `node`, for what it lacks?

        In Raft they say so. In Zab it hears each of them vote ten times, in an election that it
        does not come out of as the one who is to lead. (It hears: what they say before the links
        are healed does not reach it, and that it did not win with that would say nothing.)
        """
        votes = self.named("reject_vote", since_ns=since_ns)
        behind = (node, "its log is behind")
        rejections = {
            vote["node"] for vote in votes if (vote["candidate"], vote["reason"]) == behind
        }
        steps = self.named("become_candidate", "step_down", "look", since_ns=since_ns)
        own = [step for step in steps if step["node"] == node]
        if own and own[-1]["event"] == "become_candidate":
            return False
        looks_ns = max([since_ns, *(step["monotonic_ns"] - self._start_ns for step in own)])
        if not self.named("look"):  # not Zab: its messages need not be joined at every look here
            return rejections.issuperset(voters)
        heard = self.heard(node, "Notification", since_ns=looks_ns)
        return all(heard[voter] >= 10 for voter in voters)

    def _read_on(self) -> None:
        for path, offset in self._read_to.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(offset)
                whole, newline, _ = file.read().rpartition(b"\n")  # the rest is being written
            self._read_to[path] += len(whole) + len(newline)
            for line in whole.splitlines():
                event = msgspec.json.decode(line)
                self._events[event["event"]].append(event)
