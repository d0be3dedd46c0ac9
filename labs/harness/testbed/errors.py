"""What can go wrong with a testbed. All of it is a failure of the experiment, none of the system.

A node that is unreachable, slow or wrong is the system's behaviour and never one of these.
"""

from __future__ import annotations


class TestbedError(Exception):
    """The testbed could not do what was asked."""

    __test__ = False  # for pytest: the name is not that of a test


class NodeExited(TestbedError):
    """A node ended though nobody had asked it to. `exit_code` is negative for a signal."""

    def __init__(self, node: str, exit_code: int | None, last_lines: str) -> None:
        super().__init__(
            f"node {node} ended by itself with exit code {exit_code}; its log ends:\n{last_lines}"
        )
        self.node = node
        self.exit_code = exit_code


class ZygoteDied(TestbedError):
    """The parent of the run's processes is gone, and they with it. The run is lost."""
