"""All that the testbed must know of a kind of server to run it as a member, on every substrate.

A new kind is one module with a `Kind` and one row in `members.KINDS`. Besides, where no registry is
reached, a line in compose/stand-ins.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from labs.harness.links.fault import Link
    from labs.harness.testbed.compose_project import Layout
    from labs.harness.testbed.description import MemberSpec
    from labs.harness.testbed.ports import PortReservation

FILES = "/etc/faultline"
"""Where a container finds its member's files."""


class Question(NamedTuple):
    """Bytes to send, and what shows once in each answer to them.

    `opening` goes first, once for each connection, and its own answers do not show the mark.
    """

    asked: bytes
    mark: bytes
    opening: bytes = b""


class Version(NamedTuple):
    """A container's own word on what it is: a tag says little, a stand-in's nothing.

    `command` is run in it; `pattern` finds the version in what it says; `make` is its name.
    """

    command: list[str]
    pattern: str
    make: str


class DoctorLine(NamedTuple):
    """A line of `make doctor`; `remedy`: what to type when it is not `here`."""

    what: str
    here: bool
    found: str
    remedy: str
    use: str


class LocalMember(ABC):
    """A server as a process of this machine; constructing one that it has not raises TestbedError.

    Its data directory is the testbed's; what it listens on is reserved before it starts, because
    the links must know it.

    `flavour`: what it is, in words. `direct`: where it is dialled round the links.
    """

    flavour: str

    def __init__(self, spec: MemberSpec, ports: PortReservation) -> None:
        self.spec = spec
        self._ports = ports

    @property
    def direct(self) -> str:
        return self._ports.reserve(self.spec.name)

    def target(self, _link: Link) -> str:
        """Where that link leads: the "host:port" behind its proxy."""
        return self.direct

    @abstractmethod
    def command(self, data: Path, addresses: Mapping[Link, str]) -> list[str]:
        """Prepare the data directory, which may be new, and give the command that starts it.

        The first word is a path; the process may not fork away from it (the testbed signals and
        awaits its pid). `addresses`: where each link listens. Raises OSError or TestbedError.
        """

    def helper(self, _addresses: Mapping[Link, str]) -> dict[str, str] | None:
        """The environment of a `kafka_advertiser` to be run beside it, if it needs one."""
        return None


class Kind(ABC):
    """A kind of member. One object stands for the kind, not for a server."""

    name: ClassVar[str]
    """As `MemberSpec.kind` says it; also in `<NAME>_IMAGE` and `faultline/<name>:standin`."""
    image: ClassVar[str]
    """The official image, with its version."""
    port: ClassVar[int]
    """Where it listens in its container."""
    data: ClassVar[str] = "/data"
    """Where it keeps its data in its container: a volume."""
    template: ClassVar[str] = "member"
    """The service of compose/services.yaml that its containers extend."""
    takes_files: ClassVar[bool] = False
    """Whether `MemberSpec.files` are for it."""
    advertises: ClassVar[bool] = False
    """It tells its clients where to dial, so it has a port for each source of a link
    (`Layout.target_port`), and what it tells must do for nodes and runner alike."""
    dials_nodes: ClassVar[bool] = False
    """It opens connections itself: over a link to each node. Nodes have none to it."""
    version: ClassVar[Version]

    @abstractmethod
    def local(self, spec: MemberSpec, ports: PortReservation) -> LocalMember:
        """The best server for `spec` that this machine has.

        Raises TestbedError, which says what is missing and what to type, when it has none.
        """

    @abstractmethod
    def question(self, padding: int = 0) -> Question:
        """A harmless question in its own protocol, `padding` bytes longer than need be.

        The nemesis asks it over links, to see faults bite; several may go in one write. It changes
        nothing and needs no client library.
        """

    @abstractmethod
    async def unready(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Ask on a fresh connection why it is not ready; empty when it is.

        May raise OSError and IncompleteReadError; the caller ends it after a while.
        """

    @abstractmethod
    def service(self, member: MemberSpec, layout: Layout) -> dict[str, Any]:
        """What its Compose service has beside its template: command, environment … (unescaped)."""

    def files(self, member: MemberSpec, _layout: Layout) -> Mapping[str, str]:
        """Text by name: what its container finds in `FILES`, read-only."""
        return member.files

    @abstractmethod
    def doctor(self) -> DoctorLine:
        """What a local run would have of it."""


def package(name: str) -> Path:
    """The directory of an installed package, found without importing it; else one that is not."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found and found.origin else Path("/nonexistent")
