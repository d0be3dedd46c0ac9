"""The simulation substrate: the shipped service in virtual time, by one seed.

Read `scheduler.py` and `loop.py` first (time and processes), then `pipe.py`, `connection.py` and
`network.py`, `disk.py`, `process.py`, and `cluster.py`, which puts them together behind the
interface of every substrate.
"""
