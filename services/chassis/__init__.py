"""All I/O of a node, once: driver, transport, storage, clock, config, errors, health, telemetry."""
