"""One Kafka broker whose clients stay on their links: its settings, on every substrate.

A Kafka client dials a first address only to ask where the brokers are, and then dials the addresses
that the broker *advertises*. With one advertised address all clients would leave their links for
that one. So the broker gets **a listener for each source of a link**, and each listener advertises
the link of its source: whoever asks over c1's link is told to go on using c1's link.

    c1 ── link c1→kafka ──▶ listener FROM_C1   (advertises the link c1→kafka)
    n1 ── link n1→kafka ──▶ listener FROM_N1   (advertises the link n1→kafka)
    harness ──────────────▶ listener DIRECT    (advertises itself; also the broker's own)

The same settings serve local brokers and containers, as `server.properties`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

DIRECT = "DIRECT"
CONTROLLER = "CONTROLLER"
NODE_ID = "1"


class Listener(NamedTuple):
    """Both "host:port": where the broker binds, and what it tells clients that came this way."""

    bind: str
    advertised: str


def listener_name(source: str) -> str:
    """The name of the listener for the link from `source` (a client group or a node)."""
    return f"FROM_{source.upper().replace('-', '_')}"


def broker_settings(
    sources: Mapping[str, Listener],
    direct: Listener,
    controller: str,
    data: str,
    settings: Mapping[str, str],
) -> dict[str, str]:
    """`server.properties` of a single broker in KRaft mode, broker and controller in one process.

    Args:
        sources: the listener of each link's source, by its name.
        direct: the harness's own.
        controller: "host:port" of the controller's listener.
        data: the directory of its log.
        settings: a member's own, which win.
    """
    listeners = {DIRECT: direct, **{listener_name(src): each for src, each in sources.items()}}
    binds = [f"{name}://{each.bind}" for name, each in listeners.items()]
    protocols = dict.fromkeys((*listeners, CONTROLLER), "PLAINTEXT")
    return {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@{controller}",
        "controller.listener.names": CONTROLLER,
        "listeners": ",".join([*binds, f"{CONTROLLER}://{controller}"]),
        "advertised.listeners": ",".join(
            f"{name}://{each.advertised}" for name, each in listeners.items()
        ),
        "listener.security.protocol.map": ",".join(
            f"{name}:{protocol}" for name, protocol in protocols.items()
        ),
        "inter.broker.listener.name": DIRECT,
        "log.dirs": data,
        **SMALL,
        **settings,
    }


SMALL: Mapping[str, str] = {
    # A single broker: what Kafka keeps for itself can't have three replicas.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Fifty partitions of an internal topic are fifty files to open and recover at each start.
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # A consumer that is dead is found out within a second, if it wants to be; not in six.
    "group.min.session.timeout.ms": "500",
    # A consumer group does not wait three seconds for a second consumer to come.
    "group.initial.rebalance.delay.ms": "0",
    # A broker that was killed is let in again only when its old session has run out (nine seconds
    # by default): the controller takes it for a second broker of the same number. The new one asks
    # every half second: a short session is over when it asks first.
    "broker.session.timeout.ms": "1200",
    "broker.heartbeat.interval.ms": "200",
    # Threads for each listener, of which there is one a link.
    "num.network.threads": "1",
    "num.io.threads": "4",
}
"""For one broker on a small machine, and quick to start."""


def properties(settings: Mapping[str, str]) -> str:
    """As `server.properties` has them."""
    return "".join(f"{key}={value}\n" for key, value in settings.items())
