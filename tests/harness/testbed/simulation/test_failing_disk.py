"""A disk that fails, and the write-ahead log on it: what a node goes on from stays.

Found by `make sim SERVICE=kv PROTOCOL=zab SEED=14`: a node whose fdatasync had failed was started
again, went on from what it read, and had a hole in its log after the next power failure.
"""

from __future__ import annotations

import errno
from pathlib import Path
from unittest.mock import Mock

import pytest

from services.chassis.codec import Codec
from services.chassis.storage import Storage, StorageError
from services.protocols.core import Entry, Snapshot
from tests.harness.testbed.simulation.test_disk import FILE, Machine, written

DATA = Path("/data")
A, B, C = Entry(1, 1, b"a"), Entry(2, 1, b"bb"), Entry(3, 2, b"ccc")


def opened(machine: Machine) -> Storage:
    return Storage(DATA, Codec([Entry, Snapshot]), machine.files)


def fail_to_write(machine: Machine) -> None:
    """`new` in place of `old`, but to synchronize it fails."""
    written(machine, b"old")
    machine.disk.failing = True
    descriptor = machine.files.open(FILE)
    machine.files.write(descriptor, b"new", 0)
    with pytest.raises(OSError, match="Input/output error") as failed:
        machine.files.synchronize(descriptor)
    assert failed.value.errno == errno.EIO


def after_power_failure(machine: Machine) -> bytes:
    machine.kill(power=True)
    return machine.files.read(FILE)


async def test_after_a_failed_synchronize_pages_only_look_safe() -> None:
    """EIO once; what was written can be read, a second attempt succeeds and saves nothing."""
    found = set()
    for seed in range(20):
        machine = Machine(seed)
        fail_to_write(machine)
        machine.files.synchronize(machine.files.open(FILE))
        assert machine.files.read(FILE) == b"new"
        found.add(after_power_failure(machine))

    assert found == {b"old", b"new"}


@pytest.mark.parametrize("seed", range(10))
async def test_what_is_written_anew_and_synchronized_is_safe(seed: int) -> None:
    """The way out of a failed fdatasync: not to repeat it, to repeat the write."""
    machine = Machine(seed)
    fail_to_write(machine)
    written(machine, b"new")

    assert after_power_failure(machine) == b"new"


async def test_a_full_disk_takes_only_what_has_its_place() -> None:
    """ENOSPC for what would grow a file; bytes that it has can be overwritten."""
    machine = Machine()
    written(machine, bytes(100))
    machine.disk.full = True
    descriptor = machine.files.open(FILE)
    machine.files.write(descriptor, b"x" * 100, 0)
    with pytest.raises(OSError, match="No space left") as full:
        machine.files.write(descriptor, b"x", 100)

    assert full.value.errno == errno.ENOSPC
    assert machine.files.read(FILE) == b"x" * 100


class Killed(BaseException):
    """SIGKILL, just here."""


@pytest.mark.parametrize("seed", range(20))
async def test_what_a_node_recovers_survives_the_next_power_failure(
    seed: int,
) -> None:
    """Killed between pwrite and fdatasync: the batch is in the kernel's cache. Whoever recovers it
    there acknowledges it, with no write of its own."""
    machine = Machine(seed)
    storage = opened(machine)
    storage.append([A])
    machine.files.synchronize = Mock(side_effect=Killed)  # type: ignore[method-assign]
    with pytest.raises(Killed):
        storage.append([B])
    machine.kill(power=False)
    recovered = opened(machine).take_records()
    machine.kill(power=True)

    assert recovered == [A, B]
    assert opened(machine).take_records() == [A, B]


@pytest.mark.parametrize("seed", range(20))
async def test_a_log_whose_synchronize_failed_has_no_hole(seed: int) -> None:
    """The node stops (StorageError), is started again, goes on from what it reads, and the power
    fails: all that it went on from is there."""
    machine = Machine(seed)
    storage = opened(machine)
    storage.append([A])
    machine.disk.failing = True
    with pytest.raises(StorageError, match="cannot write"):
        storage.append([B])
    machine.kill(power=False)
    storage = opened(machine)
    recovered = storage.take_records()
    storage.append([C])
    machine.kill(power=True)

    assert recovered == [A, B]
    assert opened(machine).take_records() == [A, B, C]
