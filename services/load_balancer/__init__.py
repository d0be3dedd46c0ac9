"""A load balancer: an HTTP/1.1 reverse proxy in front of any backends.

Importing this module does the heavy imports and nothing else (no thread, no event loop): local
clusters fork their nodes from a process that has done it.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping

from services.chassis.machine import Machine
from services.chassis.service import run_process
from services.load_balancer.balancer import LoadBalancer
from services.load_balancer.config import load_config


def make(environ: Mapping[str, str], machine: Machine | None = None) -> LoadBalancer:
    """A balancer, not yet started. Raises ConfigError."""
    return LoadBalancer(load_config(environ), machine)


def main(environ: Mapping[str, str]) -> int:
    """A balancer as a process of its own; returns the exit code (2: bad configuration)."""
    # What is imported stays. The collector need not look at it again: a full collection took tens
    # of milliseconds, in which every request waited.
    gc.collect()
    gc.freeze()
    return run_process(make, environ)
