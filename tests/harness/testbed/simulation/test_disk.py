"""The simulated disk promises what POSIX promises, and under a power failure no more."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from labs.harness.testbed.simulation.disk import Disk, SimulatedFiles
from labs.harness.testbed.simulation.loop import VirtualLoop
from tests.harness.testbed.simulation.test_loop import harness

FILE, OTHER = Path("/data/file"), Path("/data/other")
SECTOR = 512


class Machine:
    """A disk and a process on it."""

    def __init__(self, seed: int = 1) -> None:
        self.disk = Disk(Random(seed))
        self.start()

    def start(self) -> None:
        self.loop = VirtualLoop(harness().simulation, "machine")
        self.files = SimulatedFiles(self.disk, self.loop)

    def kill(self, *, power: bool, after_ns: int = 10**9) -> None:
        """Kill the process so long after the callback that it is in began; then start it again."""
        self.disk.lose_unfsynced_writes = power
        self.disk.killed(harness().simulation.now_ns + after_ns)
        self.loop.die()
        self.start()


def written(machine: Machine, data: bytes, offset: int = 0, *, synchronize: bool = True) -> None:
    descriptor = machine.files.open(FILE)
    machine.files.write(descriptor, data, offset)
    if synchronize:
        machine.files.synchronize(descriptor)
        machine.files.synchronize_directory(FILE.parent)


async def test_a_killed_process_loses_nothing_that_it_has_written() -> None:
    """SIGKILL: the kernel has it, synchronized or not."""
    machine = Machine()
    written(machine, b"kept", synchronize=False)
    machine.kill(power=False)

    assert machine.files.read(FILE) == b"kept"


@pytest.mark.parametrize("seed", range(20))
async def test_what_was_synchronized_survives_a_power_failure(seed: int) -> None:
    """And what was not is kept, lost, or torn: each of them happens."""
    machine = Machine(seed)
    written(machine, b"a" * 2_000)
    written(machine, b"b" * 1_500, 100, synchronize=False)
    machine.kill(power=True)
    data = machine.files.read(FILE)

    assert len(data) == 2_000
    assert data[:100] == b"a" * 100
    assert data[1_600:] == b"a" * 400
    for start in range(0, 2_000, SECTOR):  # each sector is the old one or the new one
        whole = data[max(start, 100) : min(start + SECTOR, 1_600)]
        assert len(set(whole)) == 1


async def test_unsynchronized_writes_meet_every_fate() -> None:
    """Over many failures: all of it, none of it, a part of it."""
    fates = set()
    for seed in range(60):
        machine = Machine(seed)
        written(machine, b"a" * 2_048)
        written(machine, b"b" * 2_048, synchronize=False)
        machine.kill(power=True)
        kept = machine.files.read(FILE).count(b"b")
        fates.add("all" if kept == 2_048 else "none" if kept == 0 else "part")

    assert fates == {"all", "none", "part"}


async def test_the_power_may_fail_while_it_is_being_synchronized() -> None:
    """Before `synchronize` has returned nothing was promised."""
    found = set()
    for seed in range(20):
        machine = Machine(seed)
        written(machine, b"old")
        descriptor = machine.files.open(FILE)
        began = machine.loop.now_ns() - harness().simulation.now_ns
        machine.files.write(descriptor, b"new", 0)
        machine.files.synchronize(descriptor)
        machine.kill(power=True, after_ns=began + 1_000)
        found.add(machine.files.read(FILE))

    assert found == {b"old", b"new"}


@pytest.mark.parametrize("power", [False, True])
async def test_what_comes_after_the_kill_has_never_happened(power: bool) -> None:
    """A callback runs ahead of the others' time by its system calls; killed before, it did not."""
    machine = Machine()
    written(machine, b"before")
    began_ns = machine.loop.now_ns() - harness().simulation.now_ns
    written(machine, b"beside", synchronize=True)  # the file is written now, synchronized later
    machine.files.rename(FILE, OTHER)
    written(machine, b"another")
    machine.kill(power=power, after_ns=began_ns + 1_000)

    assert machine.files.names(FILE.parent) == ["file"]
    assert machine.files.read(FILE) in (b"before", b"beside")


async def test_names_need_their_directory_synchronized() -> None:
    """A file that was created or renamed may be gone, or have its old name."""
    found = set()
    for seed in range(40):
        machine = Machine(seed)
        written(machine, b"x")
        machine.files.rename(FILE, OTHER)
        machine.kill(power=True)
        found.update(machine.files.names(FILE.parent))

    assert found == {"file", "other"}


async def test_the_dead_write_nothing() -> None:
    """Python runs the `finally` of a dead process' coroutines; the disk takes none of it."""
    machine = Machine()
    files, descriptor = machine.files, machine.files.open(FILE)
    machine.kill(power=False)
    files.write(descriptor, b"too late", 0)
    files.remove(FILE)

    assert machine.files.read(FILE) == b""
