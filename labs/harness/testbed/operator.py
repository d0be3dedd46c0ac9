"""The operator of a run's clusters: who may change them through their services' admin faces."""

from __future__ import annotations

import secrets

# Of this process's clusters, and of nobody else's: services are given it, labs show it.
OPERATOR_TOKEN = secrets.token_urlsafe(24)
AS_OPERATOR = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
