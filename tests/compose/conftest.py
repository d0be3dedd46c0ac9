"""compose.yaml, once for the session: pytest-docker with its pitfalls closed.

- Its set-up runs outside its `try`: one that fails leaves containers and networks behind. Here all
  of it is within one.
- It remembers ports, which change when a container with a random one is started again. Here they
  are fixed for the session, and lie where neither `make up` nor a lab has any.
- It stops each container with ten seconds of patience, and throws the logs away.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_docker.plugin import Services, get_docker_services

from labs.harness.testbed import compose_images, compose_owners, free_play
from tests.compose.engine import ROOT, require_engine

# Below the ports that the kernel gives away, beside those of labs (20000 and up) and of `make up`.
PREFIXES = range(10, 20)
COMMAND = "docker compose --ansi never --progress quiet"
SET_UP = "up --detach --no-build"
CLEAN_UP = "--profile '*' down --volumes --timeout 0 --remove-orphans"


def ports() -> dict[str, str]:
    """Ports that nobody has, as the variables of compose.yaml."""
    for prefix in PREFIXES:
        wanted = {"REDIS_PORT": 379, "KAFKA_PORT": 92, "KAFKA_2_PORT": 192, "KAFKA_3_PORT": 292,
                  "PROMETHEUS_PORT": 90, "GRAFANA_PORT": 30, "JAEGER_PORT": 66}  # fmt: skip
        found = {name: prefix * 1000 + 500 + number for name, number in wanted.items()}
        if all(map(_is_free, [*found.values(), prefix * 1000 + 1, prefix * 1000 + 100])):
            return {"PORT_PREFIX": str(prefix), **{name: str(port) for name, port in found.items()}}
    raise AssertionError(f"no ports are free from {PREFIXES[0]}000 to {PREFIXES[-1]}999")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uses the session's services comes last: three idle brokers disturb whoever measures."""
    items.sort(key=lambda item: "docker_services" in getattr(item, "fixturenames", ()))


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
        **ports(),
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
