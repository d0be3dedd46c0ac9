"""ON and FAULTS: what is asked for, what is found, what is said. No engine is needed here."""

from __future__ import annotations

import json

import pytest

from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

# An engine that has been stopped: the socket is not there.
STOPPED = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


def test_compose_without_an_engine_is_refused() -> None:
    """A clear message, what to type, exit code 2, and nothing has been started."""
    answer = labs("run", "partition", ON="compose", **STOPPED)

    assert answer.returncode == 2
    assert "ON=compose can't run here: " in answer.stdout
    assert "no Docker engine answers" in answer.stdout or "no docker command" in answer.stdout
    assert "type: " in answer.stdout
    assert "Or stay with ON=local." in answer.stdout
    assert "Traceback" not in answer.stdout + answer.stderr
    assert "Evidence" not in answer.stdout


def test_auto_without_an_engine_falls_back_and_says_why() -> None:
    """`ON=auto`: local, and the first line says why."""
    answer = labs("run", "partition", ON="auto", NEMESIS="off", **STOPPED)

    assert "on local (no " in answer.stdout
    assert "for containers type: " in answer.stdout
    verdict, _ = verdict_of(answer.stdout)
    assert (verdict["substrate"], verdict["plane"]) == ("local", "proxies")


def test_without_the_docker_command_it_says_so() -> None:
    """Not even a client: that is another thing to install."""
    answer = labs("run", "partition", ON="compose", PATH="/nonexistent")

    assert answer.returncode == 2
    assert "there is no docker command" in answer.stdout


def test_images_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine alone does not do: without images the line names them and what to type."""
    from labs.harness.lab import options
    from labs.harness.testbed import compose_engine, compose_images

    engine = compose_engine.Engine("27.0", "2.30", routed=True)
    monkeypatch.setattr(compose_engine, "find", lambda: engine)

    def none(*_: object, **__: object) -> None:
        raise compose_images.NoImages("the image python:3.13-slim can't be pulled; type: make x")

    monkeypatch.setattr(compose_images, "prepare", none)

    found = options.check(on="auto")
    assert (found.substrate, found.engine) == ("local", None)
    assert "python:3.13-slim can't be pulled; type: make x" in found.why
    with pytest.raises(options.Unavailable, match="ON=compose can't run here: the image python"):
        options.check(on="compose")


@pytest.mark.parametrize("on", ["auto", "local", "compose"])
def test_an_unknown_plane_is_refused(on: str) -> None:
    """`FAULTS=pakets` must not silently mean proxies."""
    answer = labs("run", "partition", ON=on, FAULTS="pakets")

    assert answer.returncode == 2
    assert "FAULTS 'pakets' is not known: did you mean packets" in answer.stdout


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ON": "local"}, "FAULTS=packets needs containers: say ON=compose"),
        ({"ON": "auto", **STOPPED}, "FAULTS=packets can't run here: no Docker engine answers"),
    ],
)
def test_packets_without_containers_are_refused(environment: dict[str, str], expected: str) -> None:
    """What was asked for is never replaced by something else."""
    answer = labs("run", "partition", FAULTS="packets", **environment)

    assert answer.returncode == 2
    assert expected in answer.stdout or "no docker command" in answer.stdout


def test_the_plane_is_recorded_on_local_too() -> None:
    """`verdict.json` says where faults struck, whatever the substrate."""
    answer = labs("run", "partition", ON="local", NEMESIS="off")
    verdict, directory = verdict_of(answer.stdout)

    assert verdict["plane"] == "proxies"
    assert json.loads((directory / "verdict.json").read_text())["plane"] == "proxies"
    assert "faults by proxies" in answer.stdout
