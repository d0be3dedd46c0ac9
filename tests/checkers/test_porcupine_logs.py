"""No wrong verdict on the logs that porcupine tests itself with, fetched by Go's own client.

Of `test_data/jepsen` one is not covered: `etcd_095.log` is empty (its cluster did not start). The
verdicts are those of `porcupine_test.go`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from labs.harness.checkers import check_linearizable
from labs.harness.checkers.bench_porcupine import VERSION
from labs.harness.history import load_porcupine

LINEARIZABLE = {2, 5, 7, 18, 25, 31, 38, 45, 48, 49, 51, 53, 56, 67, 75, 76, 80, 87, 92, 98, 100,
                101, 102}  # fmt: skip
KEY_VALUE = {"c01": (58, 38), "c10": (337, 405), "c50": (1712, 2024)}  # operations: ok, bad


@cache
def porcupine_data() -> Path:
    """Where Go's module cache keeps porcupine's `test_data`."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not here to fetch porcupine's logs")
    module = f"github.com/anishathalye/porcupine@{VERSION}"
    command = [go, "mod", "download", "-json", module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd="/")
    if done.returncode != 0:
        pytest.skip(f"Go could not fetch {module}: {done.stdout[-200:]}{done.stderr[-200:]}")
    return Path(json.loads(done.stdout)["Dir"]) / "test_data"


def test_the_etcd_logs() -> None:
    """102 logs of etcd under Jepsen: 23 linearizable, 79 not; stories of at most six operations."""
    for number in (each for each in range(103) if each != 95):
        log = porcupine_data() / "jepsen" / f"etcd_{number:03}.log"
        result = check_linearizable(load_porcupine(log), "cas-register")
        assert result.valid is (number in LINEARIZABLE), log.name
        if result.counterexample is not None:
            assert 1 <= len(result.counterexample.ops) <= 6, log.name


@pytest.mark.parametrize("name", KEY_VALUE)
@pytest.mark.parametrize("expected", [True, False], ids=["ok", "bad"])
def test_key_value_logs(name: str, expected: bool) -> None:
    """put, append, get on ten keys, up to 50 clients; tokens are not unique."""
    history = load_porcupine(porcupine_data() / "kv" / f"{name}-{'ok' if expected else 'bad'}.txt")
    assert len(history) == KEY_VALUE[name][not expected]

    assert check_linearizable(history, "key-value", timeout_s=30).valid is expected
