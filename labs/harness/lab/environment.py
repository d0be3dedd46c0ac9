"""The machine that a run was measured on; `make doctor`: what is missing and what to type."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from labs.harness.testbed import compose_engine, compose_images
from labs.harness.testbed.members import KINDS

PACKAGES = ("aiohttp", "msgspec")


def describe() -> dict[str, Any]:
    """The machine and versions, as `verdict.json` keeps them."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _containers() -> list[tuple[str, bool, str, str, str]]:
    """What ON=compose needs: an engine, and base images to start from."""
    try:
        found, remedy = str(compose_engine.find()), ""
    except compose_engine.NoEngine as error:
        found, remedy = "", f"{error.remedy}\nor stay with ON=local\n({error})"
    engine = ("Docker engine", bool(found), found, remedy, "ON=compose")
    if not found:
        return [engine]
    images = {kind: compose_images.present(kind) for kind in compose_images.OFFICIAL}
    absent = ", ".join(compose_images.OFFICIAL[kind] for kind, name in images.items() if not name)
    remedy = f"{absent}: pulled at need; where no registry is reached, {compose_images.REMEDY}"
    here = ", ".join(filter(None, images.values()))
    return [engine, ("base images", not absent, here, remedy, "ON=compose")]


def doctor(console: Console) -> int:
    """Print the table; 0 when the labs can run here, 2 when something they need is missing."""
    python_ok = sys.version_info >= (3, 11)
    etcd = shutil.which("etcd")
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    rows = [
        ("Python 3.11 or newer", python_ok, platform.python_version(),
         "make PYTHON=python3.13 setup", "everything"),
        ("packages of requirements.lock", True, "installed", "make setup", "everything"),
        ("a loopback port", _can_listen(), "127.0.0.1", "allow this user to listen on 127.0.0.1",
         "ON=local"),
        *(kind.doctor() for kind in KINDS.values()),
        *_containers(),
        ("etcd", etcd is not None, etcd or "", "apt-get install etcd-server (to compare with)",
         "make bench"),
        ("nginx", nginx is not None, nginx or "", "apt-get install nginx-light (to compare with)",
         "make bench"),
    ]  # fmt: skip
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", "what", "found", "needed for", "what to type"):
        table.add_column(title)
    for what, here, found, remedy, use in rows:
        mark = "[green]✓[/]" if here else "[yellow]–[/]"
        table.add_row(mark, what, found if here else "not here", use, "" if here else remedy)
    console.print(table)
    runs_locally = all(here for _, here, _, _, use in rows if use in ("everything", "ON=local"))
    console.print("\nLabs run here: [bold]make lab-partition[/]" if runs_locally
                  else "\nLabs can't run here yet: see the last column.")  # fmt: skip
    return 0 if runs_locally else 2


def _can_listen() -> bool:
    import socket

    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
    except OSError:
        return False
    return True
