"""Seeds, one after another: what came of each, and how to see it again.

Goal: a failure is an invariant's name, a sentence, and a command that replays it exactly.
Method: everything in a run comes from its seed; so a seed and a planted bug name a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.causal import CausalRun
from tests.simulation.chain import ChainRun
from tests.simulation.cluster import Trace, Violation
from tests.simulation.data_types import DataRun
from tests.simulation.gossip import GossipRun
from tests.simulation.multi_leader import MultiLeaderRun
from tests.simulation.paxos import PaxosRun
from tests.simulation.primary_backup import PrimaryBackupRun
from tests.simulation.quorum import QuorumRun
from tests.simulation.raft import RaftRun
from tests.simulation.viewstamped import ViewstampedRun
from tests.simulation.zab import ZabRun
from tests.simulation.zoo import causal as causal_zoo
from tests.simulation.zoo import chain as chain_zoo
from tests.simulation.zoo import data_types as data_types_zoo
from tests.simulation.zoo import gossip as gossip_zoo
from tests.simulation.zoo import multi_leader as multi_leader_zoo
from tests.simulation.zoo import paxos as paxos_zoo
from tests.simulation.zoo import primary_backup as primary_backup_zoo
from tests.simulation.zoo import quorum as quorum_zoo
from tests.simulation.zoo import raft as raft_zoo
from tests.simulation.zoo import viewstamped as viewstamped_zoo
from tests.simulation.zoo import zab as zab_zoo
from tests.simulation.zoo.bug import CORRECT, Bug

if TYPE_CHECKING:
    from collections.abc import Iterable

PROTOCOLS: dict[str, Any] = {
    "raft": RaftRun,
    "paxos": PaxosRun,
    "primary_backup": PrimaryBackupRun,
    "quorum": QuorumRun,
    "causal": CausalRun,
    "multi_leader": MultiLeaderRun,
    "data_types": DataRun,
    "gossip": GossipRun,
    "viewstamped": ViewstampedRun,
    "zab": ZabRun,
    "chain": ChainRun,
}
_ZOOS: dict[str, Any] = {
    "raft": raft_zoo,
    "paxos": paxos_zoo,
    "primary_backup": primary_backup_zoo,
    "quorum": quorum_zoo,
    "multi_leader": multi_leader_zoo,
    "data_types": data_types_zoo,
    "gossip": gossip_zoo,
    "causal": causal_zoo,
    "viewstamped": viewstamped_zoo,
    "zab": zab_zoo,
    "chain": chain_zoo,
}
# By protocol: the planted bugs, and the absence of one.
ZOO: dict[str, dict[str, Bug]] = {
    protocol: {CORRECT.name: CORRECT, **zoo.BUGS} for protocol, zoo in _ZOOS.items()
}

INVARIANTS = (
    "election safety",
    "leader append-only",
    "log matching",
    "leader completeness",
    "state-machine safety",
    "acknowledged, never lost",
    "linearizable reads",
    "durability",  # what a node restarts from is what it had promised
    "convergence",  # after healing: a leader, new writes and reads, equal replicas
    # Paxos' (Paxos Made Moderately Complex, §2)
    "one leader in a ballot",
    "A1",  # ballots are adopted in rising order
    "A2",  # accepted only in the ballot that is adopted
    "A3",  # an acceptance is kept
    "A4",  # one command for a ballot and slot
    "A5",  # what a majority accepted, higher ballots accept too
    "C1",  # one commander for a ballot and slot
    "C2",  # what a majority accepted, higher ballots propose
    "R1",  # one decision for a slot, and a majority accepted it
    "R2",  # all slots up to the last one applied are decided
    "R3",  # the state is what the decisions make of the initial one
    "R4",  # what is decided stays decided
    # Viewstamped Replication's (§8 of the paper)
    "one primary in a view",
    "a primary only appends",
    "committed operations survive into all later views",
    # Zab's (§III of the paper), and what they rest on
    "one primary in an epoch",
    "prefix of histories",
    "integrity",
    "total order",
    "agreement",
    "local primary order",
    "global primary order",
    "primary integrity",
    # Chain replication's (§3 of the paper), and what a change of the chain must keep
    "one chain in an epoch",
    "update propagation",
    "inprocess requests",
    "acknowledged means every member",
    "what is acknowledged survives into every later chain",
    # Of a store without a leader
    "a dot names one write",
    "nothing is forgotten that was not replaced",
    "a read meets each acknowledged write",
    "a hint stays until its owner has it",
    "acknowledged means W copies",
    "what was written is never nothing",
    # Of many leaders (and "a dot names one write")
    "a node has a prefix of each log",
    "a write is later than what its leader had",
    "of what a node has, the last write stands",
    "a conflict is two writes that had not seen each other",
    "a value is what its updates made",  # of its counters, sets and sequences
    # Of gossip
    "only a member raises its incarnation",
    "a new life has a new incarnation",
    "a view moves forward",
    "news is sent a bounded number of times",
    "a rumour is told until others know it",
    "a replica never goes back",
    "the last write wins",
    "who is gone is found out",
    "nobody is found out who is there",
    # Of a causally consistent one
    "nothing is seen before its cause",
    "a session never goes back",
    "causal consistency",
    "causal convergence",
    "read your writes",
    "monotonic reads",
    "monotonic writes",
    "writes follow reads",
    "exactly once",  # a write repeated by its client is carried out once
)
WITHIN_A_NODE = "an assertion within a node"


@dataclass(frozen=True, slots=True)
class Failure:
    """`invariant` is one of INVARIANTS, or WITHIN_A_NODE for what the core itself noticed."""

    protocol: str
    seed: int
    bug: str
    invariant: str
    detail: str

    @property
    def replay(self) -> str:
        """The command that shows the same failure again, with the steps before it."""
        planted = "" if self.bug == CORRECT.name else f" BUG={self.bug}"
        return f"make sim PROTOCOL={self.protocol}{planted} RUNS=1 SEED={self.seed}"

    def __str__(self) -> str:
        return f"seed {self.seed} violates {self.invariant}: {self.detail}\nreplay: {self.replay}"


def simulate(
    seed: int, bug: Bug = CORRECT, *, protocol: str = "raft", trace: Trace | None = None
) -> Any:
    """One seed: the outcome, of its protocol's type, or a Failure.

    Any exception is a finding: nothing that a network does may raise one.
    """
    try:
        return PROTOCOLS[protocol](seed, bug, trace).run()
    except Violation as violation:
        detail = str(violation).partition(": ")[2]
        return Failure(protocol, seed, bug.name, violation.invariant, detail)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        # A leader may hear of the other one before the observer does (messages sent `early`).
        two_leaders = str(error).startswith("two leaders in term")
        invariant = "election safety" if two_leaders else WITHIN_A_NODE
        return Failure(protocol, seed, bug.name, invariant, detail)


def run_one(work: tuple[str, int, str]) -> tuple[Failure | None, int]:
    """`simulate` by names, for another process; and how many operations clients had done."""
    protocol, seed, bug = work
    result = simulate(seed, ZOO[protocol][bug], protocol=protocol)
    if isinstance(result, Failure):
        return result, 0
    return None, result.acknowledged + result.reads


def first_failure(
    seeds: Iterable[int], bug: Bug = CORRECT, *, protocol: str = "raft"
) -> Failure | None:
    for seed in seeds:
        result = simulate(seed, bug, protocol=protocol)
        if isinstance(result, Failure):
            return result
    return None


def digest(seed: int, bug: Bug = CORRECT, *, protocol: str = "raft") -> str:
    """Of every line of the run's trace: two runs that have the same did the same."""
    trace = Trace()
    result = simulate(seed, bug, protocol=protocol, trace=trace)
    trace.add(str(result))
    return trace.digest()


def digests(seeds: Iterable[int] = (1, 2)) -> list[str]:
    """A line for each protocol, correct and with its first planted bug, and each seed."""
    return [
        f"{protocol} {bug.name} {seed} {digest(seed, bug, protocol=protocol)}"
        for protocol, bugs in ZOO.items()
        for bug in list(bugs.values())[:2]
        for seed in seeds
    ]
