"""A replicated key-value store: HTTP face, driver, protocol core, write-ahead log.

Importing this module does the heavy imports and nothing else (no thread, no event loop): local
clusters fork their nodes from a process that has done it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from services.chassis import service
from services.chassis.answering import AnsweringDriver
from services.chassis.app import App
from services.chassis.capacity import Capacity
from services.chassis.driver import Driver
from services.chassis.machine import Machine
from services.chassis.node import EXIT_STORAGE, Chance, Node
from services.chassis.node_config import NodeConfig, load_node
from services.chassis.storage import StorageError
from services.kv import causal, data_types, leaderless, multi_leader
from services.kv.cores import find_protocol
from services.kv.handlers import KvHandlers
from services.kv.state_machine import KeyValueStore
from services.protocols import causal as causal_protocol
from services.protocols import gossip, quorum
from services.protocols import multi_leader as multi_leader_protocol


class Leaderless(NamedTuple):
    """A store in which every replica takes writes: what it sends and persists, driver and faces."""

    protocol: Any  # its module: MESSAGES, RECORDS
    make_driver: Callable[[Node, Chance, list[Any]], AnsweringDriver]
    add_faces: Callable[[Any, Capacity, App], None]


LEADERLESS = {
    "quorum": Leaderless(quorum, leaderless.make_driver, data_types.add_faces),
    "gossip": Leaderless(gossip, leaderless.make_driver, data_types.add_faces),
    "multi_leader": Leaderless(
        multi_leader_protocol, multi_leader.make_driver, multi_leader.add_faces
    ),
    "causal": Leaderless(causal_protocol, causal.make_driver, causal.add_faces),
}


def make_node(config: NodeConfig, machine: Machine | None = None) -> Node:
    """A node of the store, not yet started. Raises ConfigError, StorageError."""
    if config.protocol in LEADERLESS:
        return _leaderless(config, machine)
    protocol = find_protocol(config.protocol)
    store = KeyValueStore()

    def make_driver(node: Node, chance: Chance, records: list[Any]) -> Driver:
        core = protocol.make(config, chance, records)
        return Driver(
            core,
            *node.parts,
            state_machine=store,
            snapshot_entries=config.snapshot_entries,
            **node.pace,
        )

    node = Node(
        config,
        messages=protocol.messages,
        records=protocol.records,
        make_driver=make_driver,
        machine=machine,
    )
    assert isinstance(node.driver, Driver)
    capacity = Capacity(config.read_slots, config.read_ms)
    KvHandlers(node.driver, store, capacity).add_routes(node.app)
    return node


def _leaderless(config: NodeConfig, machine: Machine | None) -> Node:
    made = LEADERLESS[config.protocol]
    node = Node(
        config,
        messages=made.protocol.MESSAGES,
        records=made.protocol.RECORDS,
        make_driver=made.make_driver,
        machine=machine,
    )
    made.add_faces(node.driver, Capacity(config.read_slots, config.read_ms), node.app)
    return node


def make(environ: Mapping[str, str], machine: Machine) -> Node:
    """`make_node`, configured by the environment. Raises ConfigError, StartError."""
    config = load_node(environ)
    try:
        return make_node(config, machine)
    except StorageError as exc:
        raise service.StartError(f"{config.node}: {exc}", EXIT_STORAGE) from exc


async def serve(environ: Mapping[str, str], machine: Machine) -> int:
    """Run a node on `machine` until it is told to stop; returns the exit code."""
    return await service.serve(make, environ, machine)


def main(environ: Mapping[str, str]) -> int:
    """Run a node as a process of its own; returns the exit code."""
    return service.run_process(make, environ)
