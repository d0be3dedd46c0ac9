"""What the container of a node runs: `python -m labs.harness.testbed.container services.kv`.

A node's module has `main(environ) -> exit code` and nothing else that all have in common; the local
substrate calls it in a forked process, this calls it in a fresh one.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys


def main(arguments: list[str]) -> int:
    """Run the module named by the one argument."""
    gc.disable()  # what is imported stays: to look for garbage among it is a tenth of the start
    module = importlib.import_module(arguments[0])
    gc.freeze()
    gc.enable()
    code: int = module.main(dict(os.environ))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
