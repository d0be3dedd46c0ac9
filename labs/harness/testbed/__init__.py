"""Testbeds: a cluster of real nodes with its links, behind one interface for every substrate.

Read `cluster.py` first (the interface), then `local.py` (a process per node, forked from the warm
`zygote.py`) and `members/` (Redis, Kafka … beside the nodes, a module each); for containers
`compose_project.py` (what a cluster becomes) and `compose.py`. This package imports nothing
by itself: `launcher.py` must be cheap to import, so that a run can have its zygote import the heavy
modules while the runner imports its own.
"""
