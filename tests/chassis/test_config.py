"""Configuration: each wrong value is one clear line and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.chassis.config import Address, ConfigError
from services.chassis.node_config import load_node
from services.kv import main

GOOD = {
    "KV_NODE": "n1",
    "KV_LISTEN": "127.0.0.1:8001",
    "KV_PEERS": "n2=127.0.0.1:41001,n3=[::1]:41002",
    "KV_DATA_DIR": "/nonexistent/n1",
}


def test_good() -> None:
    """The contract's keys, with their defaults."""
    config = load_node({**GOOD, "PATH": "/bin", "KVETCH": "ours starts with KV_"})

    assert config.node == "n1"
    assert config.listen == Address("127.0.0.1", 8001)
    assert config.peers == {"n2": Address("127.0.0.1", 41001), "n3": Address("[::1]", 41002)}
    assert config.data_dir == Path("/nonexistent/n1")
    assert (config.tick_ms, config.election_ticks, config.heartbeat_ticks) == (15, 20, 3)
    assert (config.protocol, config.fsync, config.telemetry) == ("raft", "always", None)


BAD = [
    ("KV_NODE", "", "node name"),
    ("KV_NODE", "N 1", "node name"),
    ("KV_NODE", "../n1", "node name"),
    ("KV_LISTEN", "8001", "host:port"),
    ("KV_LISTEN", "127.0.0.1:65536", "65535"),
    ("KV_LISTEN", "127.0.0.1:٣", "host:port"),
    ("KV_LISTEN", "a b:80", "host:port"),
    ("KV_PEERS", "n2", "'n2' is none"),
    ("KV_PEERS", "n2=127.0.0.1:0", "host:port"),
    ("KV_PEERS", "n2=127.0.0.1:1,n2=127.0.0.1:2", "twice"),
    ("KV_PEERS", "n1=127.0.0.1:1", "the other nodes"),
    ("KV_PEERS", "n2=127.0.0.1:1,", "is none"),
    ("KV_DATA_DIR", "", "a directory"),
    ("KV_DATA_DIR", "a\0b", "a directory"),
    ("KV_PROTOCOL", "rafft", "did you mean raft?"),
    ("KV_PROTOCOL", "labs.broken:", "package.module:NAME"),
    ("KV_PROTOCOL", "labs/broken:Raft", "package.module:NAME"),
    ("KV_PROTOCOL", "labs.brokn:NoLogCheck", "labs.brokn can't be imported"),
    ("KV_PROTOCOL", "services.kv:nothing", "services.kv has no nothing"),
    ("KV_PROTOCOL", "json:JSONDecoder", "derived from one of Raft, Paxos"),
    ("KV_PROTOCOL", "json:loads", "derived from one of Raft, Paxos"),
    ("KV_ACKNOWLEDGEMENT", "all", "synchronous"),
    ("KV_PROMOTION", "yes", "naive or longest_log or none"),
    ("KV_TICK_MS", "0", "from 1 to 10000 ms"),
    ("KV_TICK_MS", "1.5", "whole number"),
    ("KV_TICK_MS", "١", "whole number"),
    ("KV_ELECTION_TICKS", "1", "from 2"),
    ("KV_HEARTBEAT_TICKS", "11", "half of KV_ELECTION_TICKS=20"),
    ("KV_SEED", "-1", "from 0"),
    ("KV_FSYNC", "nver", "did you mean never?"),
    ("KV_SNAPSHOT_ENTRIES", "many", "whole number"),
    ("KV_FAULT_INJECTION", "true", "off or on"),
    ("KV_TELEMETRY", "a\0b", "a file"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), BAD)
def test_bad_value(key: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr that names the key, the value and what is allowed; exit code 2."""
    code = main({**GOOD, key: value})

    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert key in said
    assert allowed in said
    assert repr(value) in said or value in said


@pytest.mark.parametrize("key", ["KV_NODE", "KV_LISTEN", "KV_DATA_DIR"])
def test_missing(key: str) -> None:
    """A required key that is missing is named."""
    environ = {k: v for k, v in GOOD.items() if k != key}
    with pytest.raises(ConfigError, match=f"{key} is missing"):
        load_node(environ)


def test_unknown_key() -> None:
    """A misspelt key is refused with the nearest one: it must not silently mean the default."""
    with pytest.raises(ConfigError, match=r"KV_FSNYC='never'.*nearest is KV_FSYNC"):
        load_node({**GOOD, "KV_FSNYC": "never"})


def test_semi_synchronous_alone() -> None:
    """Semi-synchronous acknowledgement waits for a backup: without one nothing would commit."""
    environ = {**GOOD, "KV_PEERS": "", "KV_ACKNOWLEDGEMENT": "semi_synchronous"}
    with pytest.raises(ConfigError, match="KV_PEERS"):
        load_node(environ)


def test_process() -> None:
    """`python -m services.kv` ends with code 2 and one line, no traceback."""
    environ = {**os.environ, **GOOD, "KV_TICK_MS": "x"}
    run = subprocess.run(
        [sys.executable, "-m", "services.kv"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr == "KV_TICK_MS='x': allowed is a whole number from 1 to 10000 ms\n"
