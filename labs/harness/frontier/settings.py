"""What is compared: R and W of three replicas, sloppy or strict, and Raft beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

REPLICAS = 3
COMMON = {"KV_TICK_MS": "10"}
# Everything that mends is on, in all of them: what differs is whom an operation waits for.
QUORUM = {
    **COMMON,
    "KV_REPLICAS": str(REPLICAS),
    "KV_CONFLICTS": "last-write-wins",
    "KV_ANTI_ENTROPY_TICKS": "30",
}
RAFT = {**COMMON, "KV_ELECTION_TICKS": "20", "KV_HEARTBEAT_TICKS": "3"}
# Whose default it is. (DeCandia et al. 2007 §6: "(3,2,2)", sloppy. Cassandra's drivers ask for ONE,
# or LOCAL_ONE; QUORUM is what its documentation gives for strong consistency. Its hints never count
# towards a write, except for ANY: so strict.)
MARKS = {
    "R1 W1": "Cassandra ONE",
    "R2 W2": "Cassandra QUORUM",
    "R2 W2 sloppy": "Dynamo",
    "Raft": "etcd",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of the sweep. `read`, `write`: R and W; 0 where a leader's majority decides."""

    name: str
    protocol: str
    environment: Mapping[str, str]
    read: int = 0
    write: int = 0
    sloppy: bool = False

    @property
    def mark(self) -> str:
        """The store whose default this is; empty for most."""
        return MARKS.get(self.name, "")

    @property
    def overlaps(self) -> bool:
        """R + W > N, strictly: each read meets each acknowledged write."""
        return self.protocol == "raft" or (
            self.read + self.write > REPLICAS and not self.sloppy
        )


def _quorum(read: int, write: int, sloppy: bool) -> Setting:
    environment = {
        **QUORUM,
        "KV_READ_QUORUM": str(read),
        "KV_WRITE_QUORUM": str(write),
        "KV_SLOPPY": "on" if sloppy else "off",
    }
    name = f"R{read} W{write}" + (" sloppy" if sloppy else "")
    return Setting(name, "quorum", environment, read, write, sloppy)


# (Sloppy with W = 1 is the same as strict: the coordinator's own copy is enough.)
SETTINGS = (
    *(_quorum(read, write, False) for read in (1, 2, 3) for write in (1, 2, 3)),
    *(_quorum(read, write, True) for read in (1, 2, 3) for write in (2, 3)),
    Setting("Raft", "raft", RAFT),
)
