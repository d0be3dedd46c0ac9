"""What a consumer of a log or queue does with each record, and when it may say that it is done.

Pure: records, answers and the time come in; what to process, to dead-letter and to commit comes
out. The same core serves Kafka and RabbitMQ, a service and a seeded simulation.
"""

from services.protocols.delivery.core import DeliveryCore
from services.protocols.delivery.model import (
    GUARANTEES,
    Batch,
    Commit,
    DeadLetter,
    Guarantee,
    Outcome,
    Ready,
    Record,
)

__all__ = [
    "GUARANTEES",
    "Batch",
    "Commit",
    "DeadLetter",
    "DeliveryCore",
    "Guarantee",
    "Outcome",
    "Ready",
    "Record",
]
