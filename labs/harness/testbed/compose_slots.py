"""Which network and which ports a cluster may have: two runs side by side must not get the same.

A *slot* is a number; subnet and ports follow from it. It is taken by a lock on a file of this
user's, which the kernel lets go when its holder dies. Others (another user, a VPN) may still be on
that subnet or those ports: then the slot is passed over, or given up when the engine says so.

The ports lie below those that the kernel gives to outgoing connections (32768 and up on Linux,
49152 on macOS): a killed node's port must not become somebody else's before it is started again.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labs.harness.testbed import registry
from labs.harness.testbed.compose_project import Place
from labs.harness.testbed.errors import TestbedError

SLOTS = range(80)
NETWORK = "10.213"
FIRST_PORT, PORTS_EACH = 20_000, 150
ROUTES = Path("/proc/net/route")


@contextmanager
def reserve(passed_over: set[int], *, published: bool) -> Iterator[tuple[int, Place]]:
    """A free slot and its place, ours until the context is left.

    `passed_over`: slots that the engine has refused. Raises TestbedError when none is left.
    """
    for number in SLOTS:
        if number in passed_over:
            continue
        lock = os.open(registry.state_directory() / f"slot-{number}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            place = _place(number, published)
            if _free(place):
                yield number, place
                return
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
    raise TestbedError(
        f"no network is free between {NETWORK}.{SLOTS[0]}.0 and {NETWORK}.{SLOTS[-1]}.0; "
        "what killed runs left behind, make clean removes"
    )


def _place(number: int, published: bool) -> Place:
    first = FIRST_PORT + number * PORTS_EACH
    ports = range(first, first + PORTS_EACH) if published else None
    return Place(f"{NETWORK}.{number}", ports)


def _free(place: Place) -> bool:
    subnet = ipaddress.ip_network(f"{place.subnet}.0/24")
    if any(subnet.overlaps(route) for route in _routes()):
        return False
    return all(_can_bind(port) for port in place.ports or ())


def _routes() -> list[ipaddress.IPv4Network]:
    """Where this machine already sends packets to, apart from its default route."""
    try:
        lines = ROUTES.read_text().splitlines()[1:]
    except OSError:
        return []  # not Linux: the engine has the last word anyway
    routes = []
    for line in lines:
        _, destination, _, _, _, _, _, mask, *_ = line.split()
        if int(mask, 16):
            address, bits = _address(destination), _address(mask)
            routes.append(ipaddress.IPv4Network(f"{address}/{bits}", strict=False))
    return routes


def _address(hexadecimal: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(hexadecimal, 16).to_bytes(4, "little"))


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
