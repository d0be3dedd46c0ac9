"""Is there an engine, and what can it do: asked before a run promises anything.

Cheap to import and to call (one `docker info`, 60 ms), because `ON=auto` asks it at every start.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

ANSWERS_WITHIN_S = 10.0
COMPOSE_NEEDED = (2, 20)
LINUX_REMEDY = "sudo compose/engine.sh"
OTHER_REMEDY = "install and start Docker Desktop"


class NoEngine(Exception):
    """No engine that could run the labs; the message says why, `remedy` what to type."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy or (LINUX_REMEDY if sys.platform == "linux" else OTHER_REMEDY)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answers. `routed`: containers can be dialled from here by their addresses."""

    version: str
    compose: str
    routed: bool

    def __str__(self) -> str:
        return f"Docker engine {self.version}, compose {self.compose}"


def find() -> Engine:
    """The engine that the docker command talks to. Raises NoEngine."""
    if shutil.which("docker") is None:
        raise NoEngine("there is no docker command")
    try:
        answer = subprocess.run(
            ["docker", "info", "--format", "{{json .}}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWERS_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoEngine(f"the Docker engine did not answer within {ANSWERS_WITHIN_S:g} s") from None
    try:
        info: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        info = {}
    if not info.get("ServerVersion"):
        errors = " ".join(info.get("ServerErrors") or []) or answer.stderr.strip() or "no answer"
        if "permission denied" in errors:
            raise NoEngine(
                "this user may not talk to the Docker engine",
                f"sudo usermod -aG docker {os.environ.get('USER', '$USER')}, then log in again",
            )
        raise NoEngine("no Docker engine answers")
    compose = _compose_version(info)
    if compose is None:
        raise NoEngine(
            "the docker command has no compose plugin",
            "apt-get install docker-compose-plugin (or your distribution's docker-compose)",
        )
    if _numbers(compose) < COMPOSE_NEEDED:
        needed = ".".join(map(str, COMPOSE_NEEDED))
        raise NoEngine(f"docker compose {compose} is older than {needed}", "upgrade Docker")
    if info.get("OSType", "linux") != "linux":
        raise NoEngine("the Docker engine runs Windows containers", "switch to Linux containers")
    return Engine(str(info["ServerVersion"]), compose, _routed(info))


def _compose_version(info: dict[str, Any]) -> str | None:
    for plugin in (info.get("ClientInfo") or {}).get("Plugins") or []:
        if plugin.get("Name") == "compose" and not plugin.get("Err"):
            return str(plugin.get("Version", "")).lstrip("v")
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _routed(info: dict[str, Any]) -> bool:
    """An engine on this very Linux, with networks in this very namespace."""
    remote = os.environ.get("DOCKER_HOST", "unix://").split("://")[0] != "unix"
    desktop = "Desktop" in str(info.get("OperatingSystem", ""))
    rootless = any("rootless" in option for option in info.get("SecurityOptions") or [])
    # Its default bridge is an interface of ours: not so when we are in a container ourselves.
    bridge = os.path.exists("/sys/class/net/docker0")
    return sys.platform == "linux" and bridge and not (remote or desktop or rootless)
