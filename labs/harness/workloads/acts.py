"""What workers did, from their own telemetry: when each got the lease, and every act of its hands.

A worker's acts are nobody's requests: no client can record them. Each worker tells of an act when
it has its answer, with the machine's clock from before it was sent to after it was answered; that
is all that an operation of a history needs. An act whose worker was killed before it could tell is
missing, so labs that kill workers have to ask the resource as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from labs.harness.history import Op, Recorder
from labs.harness.lab.directory import read_lines
from labs.harness.testbed.cluster import Cluster

FIRST_PROCESS = 1_000  # the harness's own processes are numbered from 0


@dataclass(frozen=True, slots=True)
class Act:
    """A write to the resource (`hand` is None: taking the lease); ns of the recorder's clock."""

    worker: str
    hand: int | None
    token: int
    value: Any
    began_ns: int
    ended_ns: int
    outcome: str
    definite: bool

    @property
    def accepted(self) -> bool:
        return self.outcome == "ok"


class Succession(NamedTuple):
    """Two leases, one after the other, and the first act that was accepted under the new one."""

    old: Act
    new: Act
    first: Act


class Acts:
    """Reads the telemetry of `workers` anew each time it is asked."""

    def __init__(self, cluster: Cluster, recorder: Recorder, workers: tuple[str, ...]) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self.workers = workers

    def writes(
        self, worker: str | None = None, *, token: int | None = None, since_ns: int = 0
    ) -> list[Act]:
        """Acts that were sent at `since_ns` or later, in that order."""
        return [
            act
            for act in self._read(worker, since_ns)
            if act.hand is not None and token in (None, act.token)
        ]

    def acquisitions(self, *, since_ns: int = 0) -> list[Act]:
        """Leases whose request was sent at `since_ns` or later, in that order."""
        return [act for act in self._read(None, since_ns) if act.hand is None]

    async def acting(self, acts: int) -> Act | None:
        """The latest lease, if its holder says that it has it and `acts` under it were accepted."""
        leases = self.acquisitions()
        if not leases or not self._accepted(leases[-1], acts):
            return None
        said = await self._cluster.status(leases[-1].worker)
        return leases[-1] if said and said["token"] == leases[-1].token else None

    def succession(self, old: Act, since_ns: int, acts: int) -> Succession | None:
        """The first lease of another worker than `old` had, once `acts` under it were accepted."""
        leases = self.acquisitions(since_ns=since_ns)
        leases = [lease for lease in leases if lease.worker != old.worker]
        accepted = self._accepted(leases[0], acts) if leases else []
        return Succession(old, leases[0], accepted[0]) if accepted else None

    def late(self, done: Succession) -> list[Act]:
        """Acts of the former holder, sent after one under the new lease had been accepted.

        Under any older lease: on a busy machine it may have lost its lease and had another one
        between the look that found it and the fault.
        """
        acts = self.writes(done.old.worker, since_ns=done.first.ended_ns)
        return [act for act in acts if act.token < done.new.token]

    def _accepted(self, lease: Act, least: int) -> list[Act]:
        accepted = [act for act in self.writes(token=lease.token) if act.accepted]
        return accepted if len(accepted) >= least else []

    def operations(self, key: str) -> list[Op]:
        """All of it as operations on `key`: `acquire` of the lock, `write` to what it protects."""
        processes: dict[tuple[str, int | None], int] = {}
        found: list[Op] = []
        for act in self._read(None, 0):
            place = (act.worker, act.hand)
            process = processes.setdefault(place, FIRST_PROCESS + len(found))
            kind = "ok" if act.accepted else "fail" if act.definite else "info"
            op = Op(process, "write", key, act.value, act.began_ns, act.ended_ns, "ok")
            op.node, op.extra = act.worker, {"token": act.token}
            if act.hand is None:
                op.f, op.value, op.output = "acquire", None, act.token
            elif kind == "fail":
                op.type, op.error = "fail", act.outcome
            elif kind == "info":
                op.type, op.error, op.return_ns = "info", act.outcome, None
                op.extra["gave_up_ns"] = act.ended_ns
                del processes[place]  # the hand goes on as another process
            found.append(op)
        return found

    def _read(self, worker: str | None, since_ns: int) -> list[Act]:
        acts = [act for name in self.workers if worker in (None, name) for act in self._told(name)]
        return sorted((act for act in acts if act.began_ns >= since_ns), key=lambda a: a.began_ns)

    def _told(self, worker: str) -> Iterator[Act]:
        start_ns = self._recorder.start_ns
        for event in read_lines(self._cluster.telemetry(worker)):
            acquired = event["event"] == "acquire"
            if not acquired and not (event["event"] == "call" and "token" in event):
                continue
            began_ns = event["began_ns"] - start_ns
            took_ns = event["monotonic_ns"] - event["began_ns"]
            yield Act(
                worker,
                None if acquired else event["hand"],
                event["token"],
                event.get("value"),
                began_ns,
                began_ns + took_ns,
                event.get("outcome", "ok"),
                event.get("definite", True),
            )
