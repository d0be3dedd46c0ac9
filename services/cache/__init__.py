"""A cache in front of the store: the store's HTTP face, Redis or Memcached behind it.

Importing this module does the heavy imports and nothing else (no thread, no event loop): local
clusters fork their nodes from a process that has done it.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.cache.config import load_cache
from services.cache.service import Cache
from services.chassis import service
from services.chassis.machine import Machine


def make(environ: Mapping[str, str], machine: Machine) -> Cache:
    """A cache node, configured by the environment. Raises ConfigError."""
    return Cache(*load_cache(environ), machine)


def main(environ: Mapping[str, str]) -> int:
    """Run a cache node as a process of its own; returns the exit code."""
    return service.run_process(make, environ)
