"""What the container of a node runs: `python -m labs.harness.testbed.container services.kv`.

A node's module has `main(environ) -> exit code` and nothing else that all have in common; the local
substrate calls it in a forked process, this calls it in a fresh one.
"""

from __future__ import annotations

import importlib
import os
import sys


def main(arguments: list[str]) -> int:
    """Run the module named by the one argument."""
    code: int = importlib.import_module(arguments[0]).main(dict(os.environ))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
