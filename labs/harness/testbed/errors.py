"""What can go wrong with a testbed. Nearly all of it is a failure of the experiment.

A node that is unreachable, slow or wrong is the system's behaviour and never one of these. The one
exception is a node that stops because it found itself wrong: see `NodeExited.own_fault`.
"""

from __future__ import annotations

import json

EXIT_STORAGE = 74  # sysexits.h; a node can't use its disk any more (services/chassis/node.py)
EXIT_SOFTWARE = 70  # sysexits.h; a node's own invariant broke (services/chassis/node.py)


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
        self.last_lines = last_lines

    @property
    def own_fault(self) -> str:
        """The error for which the node stopped itself; empty when something else ended it.

        A node that was killed, lost its disk or found its port taken says nothing about the
        protocol. One whose protocol contradicts itself says more than any claim about it.
        """
        if self.exit_code != EXIT_SOFTWARE:
            return ""
        for line in reversed(self.last_lines.splitlines()):
            try:
                exception = json.loads(line).get("exception", "")
            except (ValueError, AttributeError):
                continue
            if exception:
                return str(exception).strip().splitlines()[-1]
        return "its log does not say why"


class ZygoteDied(TestbedError):
    """The parent of the run's processes is gone, and they with it. The run is lost."""
