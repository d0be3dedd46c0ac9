"""A planted mistake: a patch of the shipped code that is on for one run, or a setting.

Goal: a search that finds nothing proves nothing, unless it finds what is known to be there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock


@dataclass(frozen=True, slots=True)
class Bug:
    """`patches`: (class, attribute, replacement); `environment`: settings of the nodes.

    A bug goes to other processes by reference: what it names must be importable there.
    """

    name: str
    about: str
    patches: tuple[tuple[type, str, Any], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """The code has the mistake meanwhile."""
        with contextlib.ExitStack() as stack:
            for owner, attribute, replacement in self.patches:
                stack.enter_context(mock.patch.object(owner, attribute, replacement))
            yield


SHIPPED = Bug("none", "the shipped service")
