"""Where the images come from: official ones, stand-ins where no registry is reached, and our own.

A base image is what its variable names (`PYTHON_IMAGE`, `REDIS_IMAGE` …), else the
official one if it is here, else the stand-in of `make images-offline` if that is, else the official
one is pulled. The project's own image is built on first use and again when its sources have
changed: its tag is a digest of them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from labs.harness.testbed.compose_project import ROOT, Images
from labs.harness.testbed.members import KINDS

OFFICIAL = {"python": "python:3.13-slim", **{kind.name: kind.image for kind in KINDS.values()}}
# Only for looking (`make observe`): no lab needs them, and they have no stand-ins.
VIEWERS = {"grafana": "grafana/grafana:11.4.0", "jaeger": "jaegertracing/all-in-one:1.65.0"}
SOURCES = ("Dockerfile", ".dockerignore", "requirements.lock", "services", "labs")
PULL_WITHIN_S = 120.0
BUILD_WITHIN_S = 900.0
REMEDY = "make images-offline"
LABEL = "faultline.image"
KEPT_FOR = "24h"
OWN = ("faultline/service:", "faultline/packets:")

Tell = Callable[[str], None]


class NoImages(Exception):
    """An image can't be had; the message says why and what to type."""


def prepare(
    kinds: Iterable[str] = (), *, packets: bool = False, tell: Tell = lambda _: None
) -> Images:
    """Names of images that are here, pulled or built now if need be. Raises NoImages.

    `kinds`: of the members that will run. `tell`: is told what takes long, before it does.
    """
    here = _listed()
    service = _project("service", here, tell)
    return Images(
        service=service,
        packets=_project("packets", here, tell) if packets else "",
        members={kind: base(kind, here, tell) for kind in sorted(set(kinds))},
    )


def base(kind: str, here: dict[str, str] | None = None, tell: Tell = lambda _: None) -> str:
    """The name of a base image that is here now. Raises NoImages."""
    here = _listed() if here is None else here
    wanted = os.environ.get(f"{kind.upper()}_IMAGE")
    stand_in = f"faultline/{kind}:standin"
    official = (OFFICIAL | VIEWERS)[kind]
    for name in (wanted,) if wanted else (official, stand_in):
        if name in here:
            return name
    name = wanted or official
    tell(f"pulling {name} …")
    _run(["docker", "pull", "--quiet", name], PULL_WITHIN_S, f"the image {name} can't be pulled")
    here[name] = _identity(name)
    return name


def project_tag(target: str, base_identity: str, root: Path = ROOT) -> str:
    """The name of the project's image: the same sources on the same base have the same."""
    digest = hashlib.sha256(f"{target} {base_identity}".encode())
    for path in _sources(root):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"faultline/{target}:{digest.hexdigest()[:12]}"


def present(kind: str) -> str:
    """The name of a base image that is here already; empty when none is, or no engine answers."""
    try:
        here = _listed()
    except NoImages:
        return ""
    names = (os.environ.get(f"{kind.upper()}_IMAGE"), OFFICIAL[kind], f"faultline/{kind}:standin")
    return next((name for name in names if name in here), "")


def sweep() -> list[str]:
    """Remove the project's own images, of all versions, that no container uses; says which."""
    try:
        own = [name for name in _listed() if name.startswith(OWN)]
    except (NoImages, OSError):
        return []
    removed = []
    for name in own:
        command = ["docker", "image", "rm", name]  # refuses one that a container uses
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            removed.append(f"image {name} removed")
    return removed


def _project(target: str, here: dict[str, str], tell: Tell) -> str:
    python = base("python", here, tell)
    tag = project_tag(target, here[python])
    if tag not in here:
        tell(f"building {tag} on {python} …")
        command = ["docker", "build", "--quiet", "--target", target, "--tag", tag]
        command += ["--label", f"{LABEL}={target}", "--build-arg", f"PYTHON_IMAGE={python}"]
        _run([*command, str(ROOT)], BUILD_WITHIN_S, f"the image {tag} can't be built")
        _forget_old_ones()
        here[tag] = _identity(tag)
    return tag


def _forget_old_ones() -> None:
    """Images of yesterday's sources; those that a container uses stay."""
    filters = ["--filter", f"label={LABEL}", "--filter", f"until={KEPT_FOR}"]
    command = ["docker", "image", "prune", "--all", "--force", *filters]
    subprocess.run(command, capture_output=True, check=False)


def _sources(root: Path) -> list[Path]:
    found = []
    for name in SOURCES:
        top = root / name
        found += [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix != ".pyc")


def _listed() -> dict[str, str]:
    """Every image that is here: its identity by its name."""
    command = [
        "docker",
        "image",
        "ls",
        "--no-trunc",
        "--format",
        "{{.Repository}}:{{.Tag}} {{.ID}}",
    ]
    lines = _run(command, 30.0, "the engine's images can't be listed").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def _identity(name: str) -> str:
    return _run(["docker", "image", "inspect", "--format", "{{.Id}}", name], 30.0, name).strip()


def _run(command: list[str], within_s: float, failed: str) -> str:
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoImages(f"{failed}: not within {within_s:g} s; type: {REMEDY}") from None
    if answer.returncode:
        last = (answer.stderr.strip() or "no reason was given").splitlines()[-1][:200]
        raise NoImages(f"{failed} ({last}); type: {REMEDY}")
    return answer.stdout
