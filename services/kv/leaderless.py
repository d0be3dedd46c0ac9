"""`/kv/{key}` of a store without a leader: siblings, contexts, a quorum for each request."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from services.chassis.app import (
    App,
    Context,
    deadline_of,
    json_response,
    read_json_body,
)
from services.chassis.capacity import Capacity
from services.chassis.errors import BadRequest, NotFound, TooLarge
from services.chassis.leaderless import LeaderlessDriver
from services.chassis.limits import encode_value, key_of
from services.chassis.node import Chance, Node
from services.chassis.node_config import NodeConfig
from services.kv.consistency import level_of
from services.kv.handlers import PREFIX
from services.protocols.gossip import Gossip
from services.protocols.leaderless import node_of
from services.protocols.quorum import Quorum, Siblings

TIMEOUT_S = 1.5  # of the core, below the default deadline: who has waited so long is told why
FALLBACK_S = 0.1
SIBLINGS_MAX, SIBLINGS_BYTES_MAX = 1_000, 4 << 20  # of a key, before a write that adds one
# Of a context: disks that ever coordinated a write of one key, and how many such writes of another
# node's disk this node may not have heard of.
DISKS_MAX, UNHEARD_MAX = 256, 1 << 20
CONDITIONS = ("If-Match", "If-None-Match", "Idempotency-Key")


class PutBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a PUT; `context` is what a read gave: the write replaces what that has seen."""

    value: Any
    context: dict[str, int] = {}


class Sizes:
    """How many replicas of a core each word of `?consistency=` asks to answer."""

    def __init__(self, core: Any) -> None:
        self._sizes = {"eventual": 1}
        if isinstance(core, Quorum):  # who gossips asks nobody before it answers
            self._sizes |= {"quorum": core.replicas // 2 + 1, "all": core.replicas}

    def asked(self, query: str) -> int | None:
        """None: as configured. Raises BadRequest."""
        level = level_of(query, list(self._sizes))
        return None if level is None else self._sizes[level]


def refuse(request: web.BaseRequest, *conditions: str) -> None:
    """Raise BadRequest at any of these headers."""
    for name in conditions:
        if name in request.headers:
            # To look and then to write is two steps, and no node can keep others from between.
            raise BadRequest(f"a store without a leader has no {name} for this")


class LeaderlessHandlers:
    """The public face of the store.

    Reads share `capacity` at the node that is asked. (What a read costs the other replicas is not
    counted: only those that ask one replica are fit to measure how reads scale.)
    """

    def __init__(self, driver: LeaderlessDriver, capacity: Capacity) -> None:
        self._driver = driver
        self._capacity = capacity
        self._sizes = Sizes(driver.core)

    def add_routes(self, app: App) -> None:
        """Serve `/kv/…`."""
        app.add("GET", PREFIX, self.get)
        app.add("PUT", PREFIX, self.put)
        app.add("DELETE", PREFIX, self.delete)

    async def get(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Read a key: its latest value, and its siblings if there are more."""
        key, quorum = self._asked(request, context)
        deadline = deadline_of(request, context)
        async with self._capacity:
            state: Siblings = await self._driver.read(key, quorum=quorum, deadline=deadline)
        values = [version.value for version in state.versions if version.value is not None]
        if not values:
            raise NotFound("the store has no such key", key=key, context=state.context)
        newest = max(state.versions, key=lambda version: (version.stamp, version.dot))
        latest = newest.value if newest.value is not None else values[-1]
        document = {
            "key": key,
            "value": msgspec.Raw(latest),
            "siblings": [msgspec.Raw(value) for value in values],
            **known(context, state),
        }
        return json_response(document)

    async def put(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Write a key."""
        key, quorum = self._asked(request, context)
        deadline = deadline_of(request, context)
        body: PutBody = await read_json_body(request, PutBody, deadline=deadline)
        value, seen = encode_value(body.value), self._seen(key, body.context)
        self._require_room(key, seen)
        return await self._write(context, key, value, seen, quorum, deadline)

    async def delete(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Remove what the replicas that answer know of a key; a tombstone stays.

        What this node alone knows would not do: it may have missed the write that its client was
        told is safe, and a tombstone that has not seen it leaves it as it is. (Riak reads before it
        deletes, too.) Where too few answer, nothing has happened.
        """
        key, quorum = self._asked(request, context)
        deadline = deadline_of(request, context)
        if request.can_read_body:
            raise BadRequest("a DELETE has no body")
        found: Siblings = await self._driver.read(key, quorum=quorum, deadline=deadline)
        return await self._write(context, key, None, dict(found.context), quorum, deadline)

    async def _write(
        self,
        context: Context,
        key: str,
        value: bytes | None,
        seen: dict[str, int],
        quorum: int | None,
        deadline: float,
    ) -> web.Response:
        state: Siblings = await self._driver.write(
            key, value, context=seen, quorum=quorum, deadline=deadline
        )
        return json_response({"key": key, **known(context, state)})

    def _asked(self, request: web.BaseRequest, context: Context) -> tuple[str, int | None]:
        """The key, and how many replicas shall answer (None: as configured)."""
        refuse(request, *CONDITIONS)
        return key_of(context.path[len(PREFIX) :]), self._sizes.asked(context.query)

    def _require_room(self, key: str, seen: dict[str, int]) -> None:
        """Raise TooLarge where the write would be one sibling too many: who never reads adds one
        with each write, and all of them travel, and go to the disk, with each."""
        versions = self._driver.core.state(key).versions
        kept = [len(each.value or b"") for each in versions if not each.covered_by(seen)]
        if len(kept) >= SIBLINGS_MAX or sum(kept) >= SIBLINGS_BYTES_MAX:
            raise TooLarge(f"{len(kept)} siblings: read the key, and write with the context")

    def _seen(self, key: str, context: dict[str, int]) -> dict[str, int]:
        """Raise BadRequest at a context that no read has given: it would hide what is written
        later, and use up the numbers that there are.

        This node knows what its own disk gave out, for that was there before anybody was told; of
        another one's it may not have heard yet, and can only refuse what is out of proportion.
        """
        core = self._driver.core
        known = core.state(key).context
        for disk, count in context.items():
            unheard = 0 if disk == core.disk else UNHEARD_MAX
            if node_of(disk) not in core.nodes or not 0 <= count <= known.get(disk, 0) + unheard:
                raise BadRequest("context must be one that a read has given")
        if len(known.keys() | context.keys()) > max(DISKS_MAX, len(known)):
            raise BadRequest(f"a context names at most {DISKS_MAX} disks")
        return context


def known(context: Context, state: Siblings) -> dict[str, Any]:
    """`version` is a number that grows with every write that is known."""
    version = sum(state.context.values())
    context.fields["version"] = version
    context.fields["siblings"] = len(state.versions)
    return {"version": version, "context": state.context}


def add_faces(driver: LeaderlessDriver, capacity: Capacity, app: App) -> None:
    """Serve keys."""
    LeaderlessHandlers(driver, capacity).add_routes(app)


def make_driver(node: Node, chance: Chance, records: list[Any]) -> LeaderlessDriver:
    """The core that the node's configuration describes, and its driver."""
    make = _gossip if node.config.protocol == "gossip" else _quorum
    return LeaderlessDriver(make(node.config, chance, records), *node.parts, **node.pace)


def _gossip(config: NodeConfig, chance: Chance, records: list[Any]) -> Gossip:
    return Gossip(
        config.node,
        tuple(config.peers),
        random=chance.fresh,
        records=records,
        conflicts=config.conflicts,
        spread=config.gossip_spread,
        fanout=config.gossip_fanout,
        stop_after=config.gossip_stop_after,
        gossip_ticks=config.gossip_ticks,
        anti_entropy_ticks=config.anti_entropy_ticks,
    )


def _quorum(config: NodeConfig, chance: Chance, records: list[Any]) -> Quorum:
    replicas = config.replicas or len(config.peers) + 1
    majority = replicas // 2 + 1
    ticks_per_s = 1000 / config.tick_ms
    return Quorum(
        config.node,
        tuple(config.peers),
        replicas=replicas,
        read_quorum=config.read_quorum or majority,
        write_quorum=config.write_quorum or majority,
        random=chance.fresh,
        records=records,
        sloppy=config.sloppy,
        conflicts=config.conflicts,
        timeout_ticks=max(2, round(TIMEOUT_S * ticks_per_s)),
        fallback_ticks=max(1, round(FALLBACK_S * ticks_per_s)),
        anti_entropy_ticks=config.anti_entropy_ticks,
        read_repair=config.read_repair,
        hinted_handoff=config.hinted_handoff,
    )
