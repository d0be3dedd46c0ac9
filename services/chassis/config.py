"""Configuration of a service from environment strings, all of it checked before anything starts.

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
from typing import Any, TypeVar

EXIT_BAD_CONFIGURATION = 2
PEERS_MAX = 50

Parser = Callable[[str], Any]

_NODE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,256}=*")


class ConfigError(Exception):
    """One line: the key, the value, what is allowed."""


class Invalid(ValueError):
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
        raise Invalid(f"host:port with a port from {port_min} to 65535, such as 127.0.0.1:8001")
    return Address(host, int(port))


def node(text: str) -> str:
    """A name that fits files, hosts and logs."""
    if not _NODE.fullmatch(text):
        raise Invalid("a node name such as n1: a-z, 0-9 and '-', at most 32, a letter first")
    return text


def _listen(text: str) -> Address:
    return parse_address(text, port_min=0)  # port 0: any free one


def addresses(text: str) -> dict[str, Address]:
    """`n1=host:port,n2=host:port`: others by their names; may be empty."""
    allowed = f"node=host:port pairs, joined by commas, at most {PEERS_MAX}"
    peers: dict[str, Address] = {}
    for item in text.split(",") if text.strip() else []:
        name, equals, address = item.strip().partition("=")
        if not equals:
            raise Invalid(f"{allowed}; {item.strip()!r} is none")
        peer = node(name)
        if peer in peers:
            raise Invalid(f"{allowed}, each node once; {peer} is there twice")
        peers[peer] = parse_address(address)
    if len(peers) > PEERS_MAX:
        raise Invalid(f"{allowed}; these are {len(peers)}")
    return peers


def directory(text: str) -> Path:
    """Where to keep data."""
    if not text or "\0" in text:
        raise Invalid("a directory; it is created when absent")
    return Path(text)


def _optional_path(text: str) -> Path | None:
    if "\0" in text:
        raise Invalid("a file to append to, or empty for none")
    return Path(text) if text else None


def integer(low: int, high: int, unit: str = "") -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise Invalid(f"a whole number from {low} to {high}{unit and ' ' + unit}")
        return int(text)

    return parse


def choice(*values: str) -> Callable[[str], str]:
    """A parser of one of `values`."""

    def parse(text: str) -> str:
        if text not in values:
            near = difflib.get_close_matches(text, values, 1)
            raise Invalid(" or ".join(values) + (f"; did you mean {near[0]}?" if near else ""))
        return text

    return parse


def switch(text: str) -> bool:
    """`on` or `off`."""
    return choice("off", "on")(text) == "on"


def token(text: str) -> str:
    """A bearer token (RFC 6750, 2.1), long enough not to be guessed; empty: none."""
    if text and not _TOKEN.fullmatch(text):
        raise Invalid("16 to 256 letters, digits and -._~+/, with = at the end or without")
    return text


def collector(text: str) -> str:
    """Where spans go: the base of an OTLP/HTTP address, or empty for nowhere."""
    if not text:
        return ""
    scheme, _, rest = text.partition("://")
    host, _, path = rest.rstrip("/").partition("/")
    try:
        parse_address(host)
    except Invalid:
        host = ""
    if scheme not in ("http", "https") or not host or re.search(r"[^!-~]|[?#@]", path):
        raise Invalid("http://host:port of a collector, such as http://127.0.0.1:4318, or nothing")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """What every service needs to know; each field is the environment key `<PREFIX><FIELD>`.

    `seed`: for what a service draws alike at every start (a simulation gives it its own).
    """

    node: str
    listen: Address
    peers: dict[str, Address] = field(default_factory=dict)
    data_dir: Path | None = None
    fault_injection: bool = False
    telemetry: Path | None = None
    otlp: str = ""
    service: str = field(default="", metadata={"key": False})  # what the prefix says: "kv"
    seed: int = 0

    def check(self, prefix: str) -> None:
        """What no value shows by itself. Raises ConfigError, one line."""
        if self.node in self.peers:
            raise ConfigError(
                f"{prefix}PEERS={self.node}={self.peers[self.node]}: allowed are the other "
                f"nodes, {prefix}NODE={self.node} is this one"
            )


COMMON_PARSERS: dict[str, Parser] = {
    "node": node,
    "listen": _listen,
    "peers": addresses,
    "data_dir": directory,
    "fault_injection": switch,
    "telemetry": _optional_path,
    "otlp": collector,
    "seed": integer(0, 2**63 - 1),
}

Config = TypeVar("Config", bound=ServiceConfig)


def secret() -> Any:
    """A field whose value no error and no log shows."""
    return field(default="", repr=False, metadata={"secret": True})


def load(
    kind: type[Config], environ: Mapping[str, str], prefix: str, parsers: Mapping[str, Parser]
) -> Config:
    """The checked configuration of a service: a `kind`, from the keys that begin with `prefix`.

    `parsers`, by field, for what `kind` adds to `ServiceConfig` (or reads otherwise). Raises
    ConfigError with one line for a human.
    """
    keys = [item for item in fields(kind) if item.metadata.get("key", True)]
    known = {prefix + item.name.upper(): item for item in keys}
    _refuse_unknown(environ, prefix, known)
    parse = {**COMMON_PARSERS, **parsers}
    values: dict[str, Any] = {"service": prefix.strip("_").lower().replace("_", "-")}
    for key, item in known.items():
        text = environ.get(key)
        if text is None:
            if item.default is MISSING and item.default_factory is MISSING:
                raise ConfigError(f"{key} is missing: it is required")
            continue
        try:
            values[item.name] = parse[item.name](text)
        except Invalid as exc:
            shown = "…" if item.metadata.get("secret") else repr(text[:200])
            raise ConfigError(f"{key}={shown}: allowed is {exc}") from None
    config = kind(**values)
    config.check(prefix)
    return config


def _refuse_unknown(environ: Mapping[str, str], prefix: str, known: Mapping[str, Any]) -> None:
    for key in sorted(environ):
        if key.startswith(prefix) and key not in known:
            near = difflib.get_close_matches(key, known, 1, cutoff=0.0)
            # A secret under a misspelt key is one all the same.
            shown = "…" if known[near[0]].metadata.get("secret") else repr(environ[key])
            raise ConfigError(f"{key}={shown}: there is no such key; the nearest is {near[0]}")
