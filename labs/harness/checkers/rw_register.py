"""Registers: values are unique, but their order must be inferred.

What is known of the order of a key's versions: nothing (nil) comes first; a transaction that reads
one value and then writes another puts its own right behind it or later (*writes follow reads*).
Everything else stays open, so fewer anomalies are found than with lists, and none is invented.
"""

from __future__ import annotations

from typing import Any

from labs.harness.checkers.dependencies import Graph, components
from labs.harness.checkers.transactions import Anomaly, Txns, lost_updates


def rw_register(txns: Txns) -> tuple[Graph, list[Anomaly]]:
    """The dependencies of register transactions, and the anomalies that need no cycle."""
    graph = Graph(len(txns.ops))
    found = _patterns(txns)
    later = _versions(txns)
    for key, values in later.items():
        numbers = {value: at for at, value in enumerate(values)}
        after = [[numbers[value] for value in values[earlier]] for earlier in values]
        if any(part >= 0 for part in components(len(after), after.__getitem__)):
            text = f"key {key!r}: the values read and written form a circle"
            found.append(Anomaly("cyclic-versions", text, []))
            continue
        for earlier, successors in values.items():
            for value in successors:
                first, second = txns.writer.get((key, earlier)), txns.writer.get((key, value))
                if first is not None and second is not None:
                    why = f"key {key!r}: {value!r} was written over {earlier!r}"
                    graph.add(first, second, "ww", why)
    for number, micros in enumerate(txns.micros):
        own: set[Any] = set()
        for f, key, value in micros:
            if f == "w":
                own.add(key)
            elif key not in own:
                if (writer := txns.writer.get((key, value))) is not None:
                    why = f"key {key!r}: {value!r} of the one was read by the other"
                    graph.add(writer, number, "wr", why)
                for over in later.get(key, {}).get(value, ()):
                    if (writer := txns.writer.get((key, over))) is not None:
                        shown = "nothing" if value is None else repr(value)
                        why = f"key {key!r}: it read {shown}, and the other wrote {over!r}"
                        graph.add(number, writer, "rw", why)
    return graph, found + lost_updates(txns)


def _versions(txns: Txns) -> dict[Any, dict[Any, set[Any]]]:
    """key -> value -> values known to be later, without those that follow from others."""
    later: dict[Any, dict[Any, set[Any]]] = {}
    has_parent: set[tuple[Any, Any]] = set()
    for micros in txns.micros:
        known: dict[Any, Any] = {}
        for f, key, value in micros:
            if f == "w":
                if key in known and known[key] != value:
                    later.setdefault(key, {}).setdefault(known[key], set()).add(value)
                    later[key].setdefault(value, set())
                    has_parent.add((key, value))
                known[key] = value
            else:
                known[key] = value
    # Indeterminate writes that nobody read are not known to be versions at all.
    seen = {
        txns.writer[key, value]
        for micros in txns.micros
        for f, key, value in micros
        if f == "r" and (key, value) in txns.writer
    }
    for (key, value), number in txns.writer.items():
        happened = txns.committed(number) or number in seen
        if (key, value) not in has_parent and value is not None and happened:
            later.setdefault(key, {}).setdefault(None, set()).add(value)
            later[key].setdefault(value, set())
    return later


def _patterns(txns: Txns) -> list[Anomaly]:
    """internal, G1a, G1b, thin-air reads."""
    found = []
    for number, micros in enumerate(txns.micros):
        known: dict[Any, Any] = {}
        reader = txns.ops[number]
        for f, key, value in micros:
            if f == "w":
                known[key] = value
                continue
            if key in known and known[key] != value:
                text = f"key {key!r} was read as {value!r}, not as {known[key]!r}"
                found.append(Anomaly("internal", text, [reader]))
            known[key] = value
            writer = txns.writer.get((key, value))
            if value is None or writer == number:
                continue
            if (key, value) in txns.aborted:
                text = f"{value!r} of key {key!r} was read, though its transaction aborted"
                found.append(Anomaly("G1a", text, [txns.aborted[key, value], reader]))
            elif writer is None:
                text = f"{value!r} of key {key!r} was read, but nobody wrote it"
                found.append(Anomaly("thin-air read", text, [reader]))
            elif txns.final[writer, key] != value:
                text = f"{value!r} of key {key!r} was read, which was not its last write"
                found.append(Anomaly("G1b", text, [txns.ops[writer], reader]))
    return found
