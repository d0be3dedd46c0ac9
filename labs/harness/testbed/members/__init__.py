"""Members: servers of somebody else's beside the nodes. The table of their kinds, a module each.

`kind.py` says what the testbed wants to know of a kind. Whatever differs between kinds (the server
of a local run, the Compose service, readiness, images, `make doctor`) is asked of this table.
"""

from __future__ import annotations

from collections.abc import Mapping

from labs.harness.testbed.members.kafka import Kafka
from labs.harness.testbed.members.kind import Kind
from labs.harness.testbed.members.memcached import Memcached
from labs.harness.testbed.members.prometheus import Prometheus
from labs.harness.testbed.members.rabbitmq import RabbitMQ
from labs.harness.testbed.members.redis import Redis

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Redis(),
        Kafka(),
        Prometheus(),
        Memcached(),
        RabbitMQ(),
    )
}
