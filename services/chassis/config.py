"""Configuration of a node from environment strings, all of it checked before anything starts.

A wrong value found at three in the morning, when the code that reads it first runs, is an outage;
found at start it is one line. So: every value is parsed and bounded here, a key that looks like
ours but is not known is refused (a misspelt `KV_FSNYC=never` must not silently mean `always`), and
the line names the key, the value and what is allowed. The process then ends with exit code 2.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

EXIT_BAD_CONFIGURATION = 2
PEERS_MAX = 50

_NODE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")


class ConfigError(Exception):
    """One line: the key, the value, what is allowed."""


class _Invalid(ValueError):
    """What is allowed, in words; `load` puts key and value before it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to dial."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_address(text: str, *, port_min: int = 1) -> Address:
    """`host:port`. Raises ValueError that says what is allowed."""
    host, colon, port = text.rpartition(":")
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if not colon or not _HOST.fullmatch(host) or not digits or not port_min <= int(port) <= 65535:
        raise _Invalid(f"host:port with a port from {port_min} to 65535, such as 127.0.0.1:8001")
    return Address(host, int(port))


def _node(text: str) -> str:
    if not _NODE.fullmatch(text):
        raise _Invalid("a node name such as n1: a-z, 0-9 and '-', at most 32, a letter first")
    return text


def _listen(text: str) -> Address:
    return parse_address(text, port_min=0)  # port 0: any free one


def _peers(text: str) -> dict[str, Address]:
    allowed = f"node=host:port pairs, joined by commas, at most {PEERS_MAX}"
    peers: dict[str, Address] = {}
    for item in text.split(",") if text.strip() else []:
        name, equals, address = item.strip().partition("=")
        if not equals:
            raise _Invalid(f"{allowed}; {item.strip()!r} is none")
        node = _node(name)
        if node in peers:
            raise _Invalid(f"{allowed}, each node once; {node} is there twice")
        peers[node] = parse_address(address)
    if len(peers) > PEERS_MAX:
        raise _Invalid(f"{allowed}; these are {len(peers)}")
    return peers


def _directory(text: str) -> Path:
    if not text or "\0" in text:
        raise _Invalid("a directory; it is created when absent")
    return Path(text)


def _optional_path(text: str) -> Path | None:
    if "\0" in text:
        raise _Invalid("a file to append to, or empty for none")
    return Path(text) if text else None


def integer(low: int, high: int, unit: str = "") -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise _Invalid(f"a whole number from {low} to {high}{unit and ' ' + unit}")
        return int(text)

    return parse


def choice(*values: str) -> Callable[[str], str]:
    """A parser of one of `values`."""

    def parse(text: str) -> str:
        if text not in values:
            near = difflib.get_close_matches(text, values, 1)
            raise _Invalid(" or ".join(values) + (f"; did you mean {near[0]}?" if near else ""))
        return text

    return parse


def _on(text: str) -> bool:
    return choice("off", "on")(text) == "on"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What a store node needs to know; each field is the environment key `<PREFIX><FIELD>`."""

    node: str
    listen: Address
    peers: dict[str, Address] = field(default_factory=dict)
    data_dir: Path
    protocol: str = "raft"
    acknowledgement: str = "asynchronous"
    promotion: str = "none"
    tick_ms: int = 15
    election_ticks: int = 20
    heartbeat_ticks: int = 3
    seed: int = 0
    fsync: str = "always"
    snapshot_entries: int = 10_000
    fault_injection: bool = False
    telemetry: Path | None = None


_PARSERS: dict[str, Callable[[str], Any]] = {
    "node": _node,
    "listen": _listen,
    "peers": _peers,
    "data_dir": _directory,
    "protocol": choice("raft", "paxos", "primary_backup", "viewstamped", "zab"),
    "acknowledgement": choice("asynchronous", "semi_synchronous", "synchronous"),
    "promotion": choice("naive", "none"),
    "tick_ms": integer(1, 10_000, "ms"),
    "election_ticks": integer(2, 10_000, "ticks"),
    "heartbeat_ticks": integer(1, 1_000, "ticks"),
    "seed": integer(0, 2**63 - 1),
    "fsync": choice("always", "never"),
    "snapshot_entries": integer(1, 100_000_000, "entries"),
    "fault_injection": _on,
    "telemetry": _optional_path,
}


def load(environ: Mapping[str, str], prefix: str = "KV_") -> NodeConfig:
    """The checked configuration. Raises ConfigError with one line for a human."""
    known = {prefix + f.name.upper(): f for f in fields(NodeConfig)}
    for key in sorted(environ):
        if key.startswith(prefix) and key not in known:
            near = difflib.get_close_matches(key, known, 1, cutoff=0.0)
            raise ConfigError(
                f"{key}={environ[key]!r}: there is no such key; the nearest is {near[0]}"
            )
    values: dict[str, Any] = {}
    for key, item in known.items():
        text = environ.get(key)
        if text is None:
            if item.default is MISSING and item.default_factory is MISSING:
                raise ConfigError(f"{key} is missing: it is required")
            continue
        try:
            values[item.name] = _PARSERS[item.name](text)
        except _Invalid as exc:
            raise ConfigError(f"{key}={text[:200]!r}: allowed is {exc}") from None
    config = NodeConfig(**values)
    _check_together(config, prefix)
    return config


def _check_together(config: NodeConfig, prefix: str) -> None:
    if config.node in config.peers:
        raise ConfigError(
            f"{prefix}PEERS={config.node}={config.peers[config.node]}: allowed are the other "
            f"nodes, {prefix}NODE={config.node} is this one"
        )
    if config.heartbeat_ticks > config.election_ticks // 2:
        # One lost heartbeat of a healthy leader would be enough for its followers to campaign.
        raise ConfigError(
            f"{prefix}HEARTBEAT_TICKS={config.heartbeat_ticks}: allowed is at most half of "
            f"{prefix}ELECTION_TICKS={config.election_ticks}"
        )
    if config.acknowledgement == "semi_synchronous" and not config.peers:
        raise ConfigError(
            f"{prefix}ACKNOWLEDGEMENT=semi_synchronous: allowed only with a backup in {prefix}PEERS"
        )
