"""Memcached: the installed `memcached`; the `memcached` image under Compose.

It keeps nothing on disk: killed, it comes back empty, which for a cache is a virtue.

**How a service should connect** (emcache 1.3): give `timeout` below the caller's deadline. When its
connections break, emcache dials again after 1, 2, 4 … 60 s: a server that was away for ten seconds
is found again after fifteen, so that a service which wants it back sooner makes a new client.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.members.kind import DoctorLine, Kind, LocalMember, Question, Version

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from pathlib import Path

    from labs.harness.links.fault import Link
    from labs.harness.testbed.compose_project import Layout
    from labs.harness.testbed.description import MemberSpec
    from labs.harness.testbed.ports import PortReservation

NO_SUCH_KEY = b" faultline-probe"
INSTALL = "install memcached (Debian: apt-get install memcached), or say ON=compose"


class Memcached(Kind):
    """See the module. `settings` are its long options: `{"memory-limit": "8", "threads": "1"}`."""

    name = "memcached"
    image = "memcached:1.6.39"
    port = 11211
    version = Version(["memcached", "--version"], r"memcached (\S+)", "memcached")

    def local(self, spec: MemberSpec, ports: PortReservation) -> LocalMember:
        return LocalMemcached(spec, ports)

    def question(self, padding: int = 0) -> Question:
        """`get` of keys that are not there: the answer is `END`.

        (Not one long key: they have 250 bytes at most. But `get` takes many.)
        """
        keys = NO_SUCH_KEY * (padding // len(NO_SUCH_KEY)) + b" " * (padding % len(NO_SUCH_KEY))
        return Question(b"get" + NO_SUCH_KEY + keys + b"\r\n", b"END\r\n")

    async def unready(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(b"version\r\n")
        answer = (await reader.readuntil(b"\n")).decode(errors="replace").strip()
        return "" if answer.startswith("VERSION ") else answer

    def service(self, member: MemberSpec, _layout: Layout) -> dict[str, Any]:
        options = {"listen": "0.0.0.0", "port": str(self.port), **member.settings}
        return {"entrypoint": ["memcached"], "user": "999:1000", "command": _words(options)}

    def doctor(self) -> DoctorLine:
        try:
            found = find()[1]
        except TestbedError:
            found = ""
        remedy = "sudo apt-get install memcached"
        return DoctorLine("Memcached", bool(found), found, remedy, "lab cache")


class LocalMemcached(LocalMember):
    """The installed server, with no more memory than its default of 64 MB."""

    def __init__(self, spec: MemberSpec, ports: PortReservation) -> None:
        super().__init__(spec, ports)
        self._binary, self.flavour = find()

    def command(self, data: Path, _addresses: Mapping[Link, str]) -> list[str]:
        host, _, port = self._ports.lend(self.spec.name).rpartition(":")
        # As root it refuses to run unless it is told who to be.
        user = {"user": "nobody"} if os.geteuid() == 0 else {}
        return [self._binary, *_words({"listen": host, "port": port, **user, **self.spec.settings})]


def _words(options: Mapping[str, str]) -> list[str]:
    return [f"--{key}={value}" if value else f"--{key}" for key, value in options.items()]


def find() -> tuple[str, str]:
    """The path of a server, and its flavour. Raises TestbedError."""
    installed = shutil.which("memcached")
    if installed is None:
        raise TestbedError(f"no Memcached on this machine: {INSTALL}")
    said = subprocess.run([installed, "--version"], capture_output=True, text=True, check=True)
    return installed, said.stdout.strip()
