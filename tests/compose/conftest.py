"""compose.yaml, once for the session: pytest-docker with its pitfalls closed.

- Its set-up runs outside its `try`: one that fails leaves containers and networks behind. Here all
  of it is within one.
- It remembers ports, which change when a container with a random one is started again. Here they
  are fixed, and lie where neither `make up` nor a lab has any.
- It stops each container with ten seconds of patience, and throws the logs away.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_docker.plugin import Services, get_docker_services

from labs.harness.testbed import compose_images, compose_owners, free_play
from tests.compose.engine import ROOT, require_engine

PORT_PREFIX = "18"
PORTS = {
    "PORT_PREFIX": PORT_PREFIX,
    "REDIS_PORT": "16379",
    "KAFKA_PORT": "19092",
    "KAFKA_2_PORT": "19192",
    "KAFKA_3_PORT": "19292",
}
COMMAND = "docker compose --ansi never --progress quiet"
SET_UP = "up --detach --no-build"
CLEAN_UP = "--profile '*' down --volumes --timeout 0 --remove-orphans"


@contextlib.contextmanager
def services_of(file: Path, project: str, logs: Path) -> Iterator[Services]:
    """The services of a Compose file, gone afterwards, also when their set-up has failed."""
    try:
        clean_up = [f"--profile '*' logs --no-color > {logs}", CLEAN_UP]
        with get_docker_services(COMMAND, str(file), project, SET_UP, clean_up) as services:
            yield services
    finally:
        down = [*COMMAND.split(), "-f", str(file), "-p", project, "down", "-v", "-t", "0",
                "--remove-orphans"]  # fmt: skip
        subprocess.run(down, capture_output=True, check=False)


@pytest.fixture(scope="session")
def docker_compose_file() -> Path:
    return ROOT / "compose.yaml"


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return f"faultline-tests-{os.getpid()}"


@pytest.fixture(scope="session")
def docker_services(
    docker_compose_file: Path,
    docker_compose_project_name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Services]:
    """Five store nodes, links, Redis and three brokers."""
    require_engine("redis", "kafka")
    images = compose_images.prepare(("redis", "kafka"))
    owned = compose_owners.labels(docker_compose_project_name)
    settings = {
        **PORTS,
        **free_play.environment("3", images),
        "COMPOSE_PROJECT_NAME": docker_compose_project_name,
        "FAULTLINE_RUN": owned[compose_owners.RUN],
        "FAULTLINE_OWNER": owned[compose_owners.OWNER],
    }
    logs = tmp_path_factory.mktemp("compose") / "compose.log"
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, value)
        with services_of(docker_compose_file, docker_compose_project_name, logs) as services:
            yield services
