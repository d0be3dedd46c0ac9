"""RabbitMQ as a single node: Debian's `rabbitmq-server`; the `rabbitmq` image under Compose.

Erlang's nodes find each other through a daemon, `epmd`, which the first of them starts and which
outlives them all. A single node needs nobody to find it: its distribution is started with a fixed
port and without `epmd` before RabbitMQ looks (it would start one), on loopback, and with a name, a
cookie and a data directory of its own. So nothing is left behind, and an installed RabbitMQ of the
machine's is neither used nor met.

**How a service should connect** (aio-pika 9, RabbitMQ 3.10):

- User and password are `guest`, also over the network. A broker that is not up yet is an error of
  the first call.
- A connection that was cut off for longer than its heartbeat is closed by both sides. What was not
  acknowledged is then delivered again, over whatever connection comes first.
- A publish is safe once it is confirmed; one that timed out is an indefinite error. What must
  outlive the broker's death needs a durable queue *and* a persistent message.
- A declaration is answered a moment before it is durable. Mnesia, which keeps the queues, writes
  what is declared, syncs, answers, and leaves the decision to commit it to a buffer; killed before
  that was written, a broker comes back without the queue, and what was confirmed is gone with it
  (RabbitMQ 4.0.5: the record was in Mnesia's log as `presume_abort`, and no decision after it).
  The next declaration syncs the log again, with the decision of the one before.
"""

from __future__ import annotations

import secrets
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.members.kind import (
    FILES,
    DoctorLine,
    Kind,
    LocalMember,
    Question,
    Version,
)
from labs.harness.testbed.members.rabbitmq_modules import quick_to_find

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from labs.harness.links.fault import Link
    from labs.harness.testbed.compose_project import Layout
    from labs.harness.testbed.description import MemberSpec
    from labs.harness.testbed.ports import PortReservation

REMEDY = "sudo apt-get install rabbitmq-server"
DISTRIBUTION_PORT = 25672
CONF, PLUGINS = "rabbitmq.conf", "enabled_plugins"
# Debian's own script in the path insists on a user; what it wraps does not.
SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server")
SETTINGS = {
    "loopback_users": "none",  # clients in containers come from other addresses
    "log.file": "false",
    "log.console": "true",
    "log.console.level": "warning",
}

# --- AMQP 0-9-1: a frame is type, channel, size, payload, 0xCE; a method class, method, arguments
HEADER = b"AMQP\x00\x00\x09\x01"
QOS_OK = struct.pack(">HHB", 60, 11, 0xCE)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def _method(channel: int, class_id: int, method: int, arguments: bytes) -> bytes:
    return _frame(1, channel, struct.pack(">HH", class_id, method) + arguments)


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


# What a client says until it has a channel; a server reads it in order and needs no pause in it.
OPENING = (
    HEADER
    # Connection.StartOk: no properties, PLAIN, guest
    + _method(0, 10, 11, _long(b"") + _short(b"PLAIN") + _long(b"\0guest\0guest") + _short(b"C"))
    + _method(0, 10, 31, struct.pack(">HIH", 16, 131072, 0))  # Connection.TuneOk: no heartbeat
    + _method(0, 10, 40, _short(b"/") + _short(b"") + b"\0")  # Connection.Open
    + _method(1, 20, 10, _short(b""))  # Channel.Open
)
QOS = _method(1, 60, 10, struct.pack(">IHB", 0, 0, 0))  # Basic.Qos of a channel with no consumer
HEARTBEAT = _frame(8, 0, b"")


class RabbitMQ(Kind):
    """See the module. `settings` are those of `rabbitmq.conf`."""

    name = "rabbitmq"
    image = "rabbitmq:4.1.3"
    port = 5672
    data = "/var/lib/rabbitmq"
    version = Version(
        ["sh", "-c", "ls -d /opt/rabbitmq/plugins/rabbit-* /usr/lib/rabbitmq/lib/rabbit* || true"],
        r"rabbit(?:mq_server)?-(\d[\d.]*\d)",
        "rabbitmq",
    )

    def local(self, spec: MemberSpec, ports: PortReservation) -> LocalMember:
        return LocalRabbitMQ(spec, ports)

    def question(self, padding: int = 0) -> Question:
        """`Basic.Qos` on a channel that nobody consumes from; padded with heartbeats."""
        # The padding first: an answer to what comes before it would not have had to wait for it.
        return Question(HEARTBEAT * (padding // len(HEARTBEAT)) + QOS, QOS_OK, opening=OPENING)

    async def unready(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """It listens before it lets anybody in: ready is one that answers on a channel."""
        writer.write(OPENING + QOS)
        await reader.readuntil(QOS_OK)
        return ""

    def service(self, member: MemberSpec, _layout: Layout) -> dict[str, Any]:
        which = " ".join(SERVERS)
        return {
            "user": "999:999",
            "entrypoint": ["/bin/sh", "-euc"],
            "command": [f'for each in {which}; do if [ -x "$each" ]; then exec "$each"; fi; done'],
            "environment": environment(
                f"{member.name}@localhost", self.data, FILES, DISTRIBUTION_PORT
            ),
        }

    def files(self, member: MemberSpec, _layout: Layout) -> Mapping[str, str]:
        listen = {"listeners.tcp.1": f"0.0.0.0:{self.port}"}
        return {CONF: _conf({**listen, **SETTINGS, **member.settings}), PLUGINS: "[].\n"}

    def doctor(self) -> DoctorLine:
        try:
            found = find()[1]
        except TestbedError:
            found = ""
        return DoctorLine("RabbitMQ", bool(found), found, REMEDY, "RabbitMQ labs")


class LocalRabbitMQ(LocalMember):
    """A node of its own; its queues are in its data directory and read again at the next start."""

    def __init__(self, spec: MemberSpec, ports: PortReservation) -> None:
        super().__init__(spec, ports)
        self._server, self.flavour = find()

    def command(self, data: Path, _addresses: Mapping[Link, str]) -> list[str]:
        _, _, distribution = self._ports.lend(f"{self.spec.name} distribution").rpartition(":")
        listen = {"listeners.tcp.1": self._ports.lend(self.spec.name)}
        (data / CONF).write_text(_conf({**listen, **SETTINGS, **self.spec.settings}))
        (data / PLUGINS).write_text("[].\n")
        # The port makes the name this run's: two nodes of one name on a machine refuse each other.
        name = f"{self.spec.name}-{distribution}@localhost"
        variables = environment(name, str(data), str(data), int(distribution))
        variables |= quick_to_find(Path(self._server).resolve().parents[1] / "plugins")
        words = [f"{key}={value}" for key, value in variables.items()]
        return [shutil.which("env") or "/usr/bin/env", *words, self._server]


def environment(name: str, data: str, files: str, distribution: int) -> dict[str, str]:
    """What `rabbitmq-server` reads: where all of its own is, and how Erlang is started."""
    arguments = [
        "-noinput",
        f"-sname {name} -start_epmd false -erl_epmd_port {distribution}",
        # Of this start alone, and not in a file: a package may have left one that is another's.
        f"-setcookie {secrets.token_hex(16)}",
        "-kernel inet_dist_use_interface {127,0,0,1}",
        "+sbwt none +sbwtdcpu none +sbwtdio none",  # idle schedulers spin, on cores of others
    ]
    return {
        "HOME": data,
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": f"{data}/node",  # not `mnesia`, which a package has made its own
        "RABBITMQ_LOG_BASE": f"{data}/node-log",
        "RABBITMQ_GENERATED_CONFIG_DIR": f"{data}/config",
        "RABBITMQ_PLUGINS_EXPAND_DIR": f"{data}/plugins",
        "RABBITMQ_FEATURE_FLAGS_FILE": f"{data}/feature_flags",
        "RABBITMQ_PID_FILE": f"{data}/pid",
        "RABBITMQ_CONFIG_FILE": f"{files}/{CONF}",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{files}/{PLUGINS}",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # not that of the machine's own
        "RABBITMQ_ALLOW_INPUT": "1",  # become Erlang, instead of waiting for it as its parent
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(arguments),
        "ERL_CRASH_DUMP_BYTES": "0",
    }


def _conf(settings: Mapping[str, str]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in settings.items())


def find() -> tuple[str, str]:
    """The path of a server, and its flavour. Raises TestbedError."""
    for server in (*SERVERS, shutil.which("rabbitmq-server")):
        if server and Path(server).exists() and shutil.which("erl"):
            home = Path(server).resolve().parents[1]
            versions = [path.name.partition("-")[2] for path in home.glob("lib/rabbitmq_server-*")]
            versions += [path.name.partition("-")[2] for path in home.glob("plugins/rabbit-*")]
            return server, f"rabbitmq {versions[0] if versions else '?'}"
    raise TestbedError(f"needs RabbitMQ, which is not on this machine; type: {REMEDY}")
