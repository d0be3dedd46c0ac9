"""Prometheus: it scrapes `/metrics` of every node and evaluates the rules that it is given.

    MemberSpec("prometheus", "prometheus", {"query.lookback-delta": "10s"}, {"rules.yml": …})

`settings` are flags without their dashes, and what `INTERVALS` names; `files` are rule files. It
opens connections, as no other member does: over a link of its own to each node, so that a partition
can cut the monitoring off. Series carry `job="nodes"` and `instance="n1"`, the node's name.

Ask it over its HTTP API (`prometheus_api.py`). It looks for its targets for the first time five
seconds after its start, whatever its settings say (the ticker of its discovery manager). A short
window needs at least four scrapes: `rate` takes two samples, one scrape may be late, and from
version 3 on a window no longer holds the sample at its left edge.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.members.kind import (
    FILES,
    DoctorLine,
    Kind,
    LocalMember,
    Question,
    Version,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from pathlib import Path

    from labs.harness.links.fault import Link
    from labs.harness.testbed.compose_project import Layout
    from labs.harness.testbed.description import MemberSpec
    from labs.harness.testbed.ports import PortReservation

CONFIGURATION = "prometheus.yml"
INTERVALS = {"scrape_interval": "500ms", "scrape_timeout": "400ms", "evaluation_interval": "500ms"}
REMEDY = "sudo apt-get install prometheus"
HEALTHY = b"GET /-/healthy HTTP/1.1\r\nHost: probe\r\n"
VERSION = r"version (\d[\w.]*)"


class Prometheus(Kind):
    """See the module."""

    name = "prometheus"
    image = "prom/prometheus:v2.53.4"
    port = 9090
    data = "/prometheus"
    takes_files = True
    dials_nodes = True
    version = Version(["/bin/prometheus", "--version"], VERSION, "prometheus")

    def local(self, spec: MemberSpec, ports: PortReservation) -> LocalMember:
        return LocalPrometheus(spec, ports)

    def question(self, padding: int = 0) -> Question:
        pad = b"X-Padding: " + b"." * padding + b"\r\n" if padding else b""
        return Question(HEALTHY + pad + b"\r\n", b"HTTP/1.1 ")

    async def unready(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """It replays its log first; `/-/ready` then turns from 503 to 200."""
        writer.write(b"GET /-/ready HTTP/1.0\r\n\r\n")
        status = (await reader.readuntil(b"\r\n")).decode(errors="replace").strip()
        return "" if " 200 " in f"{status} " else status

    def service(self, member: MemberSpec, _layout: Layout) -> dict[str, Any]:
        flags = _flags(
            member, f"{FILES}/{CONFIGURATION}", self.data, f"0.0.0.0:{self.port}"
        )
        return {"user": "65534:65534", "entrypoint": ["/bin/prometheus"], "command": flags}

    def files(self, member: MemberSpec, layout: Layout) -> Mapping[str, str]:
        targets = {
            node: layout.inside(member.name, node) for node in layout.spec.peers_of(member.name)
        }
        return {**member.files, CONFIGURATION: configuration(targets, member)}

    def doctor(self) -> DoctorLine:
        found = find()
        text = version_of(found) if found else ""
        return DoctorLine("Prometheus", bool(found), text, REMEDY, "lab monitoring")


class LocalPrometheus(LocalMember):
    """The distribution's package, or any `prometheus` in the path."""

    def __init__(self, spec: MemberSpec, ports: PortReservation) -> None:
        super().__init__(spec, ports)
        self._binary = find()
        if not self._binary:
            raise TestbedError(
                f"{spec.name} needs Prometheus, which is not on this machine: type {REMEDY} (its "
                "own service need not run: sudo systemctl disable --now prometheus)"
            )
        self.flavour = f"prometheus {version_of(self._binary)}"

    def command(self, data: Path, addresses: Mapping[Link, str]) -> list[str]:
        targets = {
            link.dst: address for link, address in addresses.items() if link.src == self.spec.name
        }
        for name, text in self.spec.files.items():
            (data / name).write_text(text)
        file = data / CONFIGURATION
        file.write_text(configuration(targets, self.spec))
        listen = self._ports.lend(self.spec.name)
        return [self._binary, *_flags(self.spec, str(file), str(data / "tsdb"), listen)]


def configuration(targets: Mapping[str, str], member: MemberSpec) -> str:
    """`prometheus.yml` (JSON is YAML, too). `targets`: "host:port" of each node, by its name.

    Rule files lie beside it.
    """
    scrapes = {
        "job_name": "nodes",
        "static_configs": [
            {"targets": [address], "labels": {"instance": node}}
            for node, address in targets.items()
        ],
    }
    return json.dumps(
        {
            "global": {key: member.settings.get(key, INTERVALS[key]) for key in INTERVALS},
            "rule_files": sorted(member.files),
            "scrape_configs": [scrapes],
        },
        indent=1,
    )


def _flags(member: MemberSpec, configuration: str, data: str, listen: str) -> list[str]:
    flags = {
        "config.file": configuration,
        "storage.tsdb.path": data,
        "web.listen-address": listen,
        **{key: value for key, value in member.settings.items() if key not in INTERVALS},
    }
    # A boolean flag takes no value: --web.enable-admin-api.
    return [
        f"--{key}" if value == "true" else f"--{key}={value}" for key, value in flags.items()
    ]


def find() -> str:
    """The path of `prometheus`; empty when it is not here."""
    return shutil.which("prometheus") or ""


def version_of(binary: str) -> str:
    """Its version, such as "2.42.0"; "?" when it does not say."""
    said = subprocess.run(
        [binary, "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    found = re.search(VERSION, said.stdout + said.stderr)  # before version 2.4x: on stderr
    return found[1] if found else "?"
