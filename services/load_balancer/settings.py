"""The times of the configuration in seconds, as the data path reads them once per event."""

from __future__ import annotations

from dataclasses import dataclass

from services.load_balancer.config import BalancerConfig


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds; what each is for says `BalancerConfig`."""

    connect_s: float
    answer_s: float
    header_s: float
    body_s: float
    send_s: float
    keepalive_s: float
    backend_keepalive_s: float
    backend_idle_max: int

    @classmethod
    def of(cls, config: BalancerConfig) -> Times:
        return cls(
            connect_s=config.connect_timeout_ms / 1000,
            answer_s=config.answer_timeout_ms / 1000,
            header_s=config.header_timeout_ms / 1000,
            body_s=config.body_timeout_ms / 1000,
            send_s=config.send_timeout_ms / 1000,
            keepalive_s=config.keepalive_ms / 1000,
            backend_keepalive_s=config.backend_keepalive_ms / 1000,
            backend_idle_max=config.backend_idle_max,
        )
