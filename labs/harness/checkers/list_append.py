"""Lists: a read shows the whole order of the appends before it, so versions are known exactly."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from labs.harness.checkers.dependencies import Graph
from labs.harness.checkers.story import short
from labs.harness.checkers.transactions import Anomaly, Txns, lost_updates

MAX_UNOBSERVED = 64
"""Appends that nobody read, per key, that get edges from the readers of the last version."""


def list_append(txns: Txns) -> tuple[Graph, list[Anomaly]]:
    """The dependencies of list-append transactions, and the anomalies that need no cycle."""
    graph = Graph(len(txns.ops))
    found = [*_internal(txns), *_reads(txns)]
    orders: dict[Any, tuple[Any, ...]] = {}
    readers: dict[Any, list[tuple[int, tuple[Any, ...]]]] = {}
    for number, micros in enumerate(txns.micros):
        own: set[Any] = set()
        for f, key, value in micros:
            if f == "r":
                # What a transaction appended itself is not another's version.
                if key not in own:
                    readers.setdefault(key, []).append((number, value))
            else:
                own.add(key)
        for f, key, value in micros:
            if f == "r" and len(value) > len(orders.get(key, ())):
                orders[key] = value
    for number, micros in enumerate(txns.micros):
        for f, key, value in micros:
            if f == "r" and orders.get(key, ())[: len(value)] != value:
                text = f"key {key!r} was read as {list(value)} and as {list(orders[key])}"
                read = ("r", key, orders[key])
                longest = next(n for n, ms in enumerate(txns.micros) if read in ms)
                ops = [txns.ops[number], txns.ops[longest]]
                found.append(Anomaly("incompatible-order", text, ops))
    unobserved = _unobserved(txns, orders)
    for key in {key for key, _ in txns.writer}:
        order = orders.get(key, ())
        _version_edges(txns, graph, key, order, unobserved.get(key, []))
        _read_edges(txns, graph, key, order, readers.get(key, []), unobserved.get(key, []))
    return graph, found + lost_updates(txns)


def _internal(txns: Txns) -> list[Anomaly]:
    """A read that contradicts what its own transaction read or appended before."""
    found = []
    for number, micros in enumerate(txns.micros):
        known: dict[Any, tuple[Any, ...]] = {}  # what was read, with own appends
        tails: dict[Any, tuple[Any, ...]] = {}  # own appends before any read
        for f, key, value in micros:
            if f == "append":
                if key in known:
                    known[key] = (*known[key], value)
                else:
                    tails[key] = (*tails.get(key, ()), value)
                continue
            tail = tails.pop(key, ())
            wrong = key in known and known[key] != value
            if wrong or (tail and value[-len(tail) :] != tail):
                text = f"key {key!r} was read as {list(value)} against its own transaction"
                found.append(Anomaly("internal", text, [txns.ops[number]]))
            known[key] = value
    return found


def _reads(txns: Txns) -> list[Anomaly]:
    """Elements that were aborted, intermediate, twice there, or never appended."""
    found = []
    for number, micros in enumerate(txns.micros):
        reader = txns.ops[number]
        for f, key, value in micros:
            if f != "r":
                continue
            if len(set(value)) != len(value):
                text = f"key {key!r} was read as {list(value)}"
                found.append(Anomaly("duplicate-elements", text, [reader]))
            for element in value:
                if (key, element) in txns.writer:
                    continue
                if (key, element) in txns.aborted:
                    text = f"{element!r} of key {key!r} was read, though its transaction aborted"
                    found.append(Anomaly("G1a", text, [txns.aborted[key, element], reader]))
                else:
                    text = f"{element!r} of key {key!r} was read, but nobody appended it"
                    found.append(Anomaly("thin-air read", text, [reader]))
            if value and (writer := txns.writer.get((key, value[-1]))) not in (None, number):
                assert writer is not None
                if txns.final[writer, key] != value[-1]:
                    text = f"{value[-1]!r} of key {key!r} was read, which was not its last append"
                    found.append(Anomaly("G1b", text, [txns.ops[writer], reader]))
            aborted = [at for at, element in enumerate(value) if (key, element) in txns.aborted]
            if aborted and any((key, element) in txns.writer for element in value[aborted[0] :]):
                text = f"key {key!r}: an append stands behind an aborted one in {list(value)}"
                found.append(Anomaly("dirty-update", text, [reader]))
    return found


def _unobserved(txns: Txns, orders: dict[Any, tuple[Any, ...]]) -> dict[Any, list[int]]:
    """Committed appends that the longest read of their key does not show: they came after it."""
    seen = {key: set(order) for key, order in orders.items()}
    found: dict[Any, list[int]] = {}
    for (key, value), number in txns.writer.items():
        if txns.committed(number) and value not in seen.get(key, ()):
            writers = found.setdefault(key, [])
            if number not in writers[-1:]:
                writers.append(number)
    return found


def _version_edges(
    txns: Txns, graph: Graph, key: Any, order: tuple[Any, ...], unobserved: list[int]
) -> None:
    for earlier, later in pairwise(order):
        first, second = txns.writer.get((key, earlier)), txns.writer.get((key, later))
        if first is not None and second is not None:
            why = f"key {key!r}: {later!r} was appended right after {earlier!r}"
            graph.add(first, second, "ww", why)
    last = txns.writer.get((key, order[-1])) if order else None
    if last is not None:
        for number in unobserved[:MAX_UNOBSERVED]:
            why = f"key {key!r}: its append is not among those read up to {order[-1]!r}"
            graph.add(last, number, "ww", why)


def _read_edges(
    txns: Txns,
    graph: Graph,
    key: Any,
    order: tuple[Any, ...],
    readers: list[tuple[int, tuple[Any, ...]]],
    unobserved: list[int],
) -> None:
    for number, seen in readers:
        if seen:
            writer = txns.writer.get((key, seen[-1]))
            if writer is not None:
                why = f"key {key!r}: {seen[-1]!r} of the one was read by the other"
                graph.add(writer, number, "wr", why)
        shown = short(list(seen)) if seen else "nothing"
        if len(seen) < len(order):
            overwriter = txns.writer.get((key, order[len(seen)]))
            if overwriter is not None:
                why = f"key {key!r}: it read {shown}, and the other appended {order[len(seen)]!r}"
                graph.add(number, overwriter, "rw", why)
            continue
        for overwriter in unobserved[:MAX_UNOBSERVED]:
            why = f"key {key!r}: it read {shown}, not what the other appended"
            graph.add(number, overwriter, "rw", why)
