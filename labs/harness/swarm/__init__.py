"""Many seeded runs of the simulated service: find a failure, replay it, shrink it, tell it."""
