"""A replicated key-value store: HTTP face, driver, protocol core, write-ahead log.

Importing this module does the heavy imports and nothing else (no thread, no event loop): local
clusters fork their nodes from a process that has done it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.chassis.config import EXIT_BAD_CONFIGURATION, ConfigError, NodeConfig, load
from services.chassis.loop import new_event_loop
from services.chassis.machine import Machine
from services.chassis.node import EXIT_STORAGE, Node
from services.chassis.storage import StorageError
from services.kv.cores import PROTOCOLS
from services.kv.handlers import KvHandlers
from services.kv.state_machine import KeyValueStore


def make_node(config: NodeConfig, machine: Machine | None = None) -> Node:
    """A node of the store, not yet started. Raises StorageError."""
    store = KeyValueStore()
    protocol = PROTOCOLS[config.protocol]
    node = Node(
        config,
        messages=protocol.messages,
        records=protocol.records,
        make_core=protocol.make,
        state_machine=store,
        machine=machine,
    )
    KvHandlers(node.driver, store).add_routes(node.app)
    return node


async def serve(environ: Mapping[str, str], machine: Machine) -> int:
    """Run a node until it is told to stop; returns the exit code (2: bad configuration)."""
    try:
        config = load(environ)
    except ConfigError as exc:
        print(exc, file=machine.output)
        return EXIT_BAD_CONFIGURATION
    try:
        node = make_node(config, machine)
    except StorageError as exc:
        print(f"{config.node}: {exc}", file=machine.output)
        return EXIT_STORAGE
    return await node.run()


def main(environ: Mapping[str, str]) -> int:
    """`serve` as a process of its own."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(serve(environ, Machine()))
