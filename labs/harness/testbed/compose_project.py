"""What a cluster is made of as two Compose projects: pure functions from its description.

    runner ── c1's link ──▶ links ──▶ n1 (pod: address, names, namespace)
                              ▲        └─ n1-app (the node; killed and started within the pod)
                n2-app ── n2's link

- Every node and member is a *pod* that only holds a network namespace, and a container that runs in
  it. When the latter is killed the address stays and its port refuses at once, as that of a dead
  process does. (Without a pod the namespace goes with the container: dialling it then takes seconds
  to fail, and a partition by packet filter would heal by itself.)
- Network, pods and links are one project, the *ground*; what runs in the pods is another one. A
  run's next cluster can stand on the ground of the one before (`compose_ground.py`).
- Addresses are fixed: a killed node returns to its own, and no name is ever looked up.
- With `FAULTS=proxies` all links are in one container, a port each. With `FAULTS=packets` nodes
  dial each other directly, rules in the source's pod cut them, and each source's pod relays what
  the runner sends over that source's links.

Two kinds of address: what containers dial (`inside`), and what the runner dials (`outside`). They
are the same where the engine's network is reachable from here (`routed`: an engine on this Linux).
Where it is not (Docker Desktop, rootless) ports are published, on 127.0.0.1 alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from labs.harness.links.fault import Link
from labs.harness.testbed.description import ClusterSpec, MemberSpec, NodeSpec
from labs.harness.testbed.members import KINDS
from labs.harness.testbed.members.kind import FILES

Plane = Literal["proxies", "packets"]

ROOT = Path(__file__).resolve().parents[3]
TEMPLATES = ROOT / "compose" / "services.yaml"
LINKS = "links"
CONTROL_PORT = 7000
NODE_PORT = 8000
FIRST_LISTENER = 9100  # of a member that has one for each source
FIRST_LINK_PORT = 20_000
NODE_DATA = "/data"
TELEMETRY = "/telemetry/events.jsonl"
FIRST_HOST = {"links": 2, "clients": 10, "nodes": 100, "members": 200}
RUN_MODULE = "labs.harness.testbed.container"


def app(name: str) -> str:
    """The Compose service that runs `name` in its pod."""
    return f"{name}-app"


def volume(name: str) -> str:
    return f"{name}-data"


@dataclass(frozen=True, slots=True)
class Images:
    """Image names; `members` by kind."""

    service: str
    packets: str = ""
    members: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a project may be: `subnet` is "10.213.7" (a /24), `ports` are this run's on 127.0.0.1,
    or None when the containers can be reached by their own addresses."""

    subnet: str
    ports: range | None = None


class Layout:
    """Who is where, of `spec` at `place`."""

    def __init__(self, spec: ClusterSpec, place: Place, plane: Plane = "proxies") -> None:
        self.spec = spec
        self.place = place
        self.plane: Plane = plane
        hosts = {LINKS: FIRST_HOST["links"]}
        for kind, names in (
            ("clients", spec.clients),
            ("nodes", spec.node_names),
            ("members", spec.member_names),
        ):
            hosts |= {name: FIRST_HOST[kind] + number for number, name in enumerate(names)}
        self._ips = {name: f"{place.subnet}.{host}" for name, host in hosts.items()}
        self._link_ports = {link: FIRST_LINK_PORT + n for n, link in enumerate(spec.links)}
        self._published: dict[tuple[str, int], int] = {}
        if place.ports is not None:
            wanted = [*self._everywhere()]
            assert len(wanted) <= len(place.ports), f"{len(wanted)} ports for {spec.name}"
            self._published = dict(zip(wanted, place.ports, strict=False))

    # --- addresses

    @property
    def relays(self) -> tuple[str, ...]:
        """Where link proxies run: one for all links, or with packets one in each source's pod."""
        if self.plane == "proxies":
            return (LINKS,)
        return tuple(dict.fromkeys(link.src for link in self.spec.links))

    def relay(self, link: Link) -> str:
        return LINKS if self.plane == "proxies" else link.src

    def ip(self, name: str) -> str:
        return self._ips[name]

    def link_port(self, link: Link) -> int:
        return self._link_ports[link]

    def inside(self, src: str, dst: str) -> str:
        """Where a container of `src` dials `dst`: its link."""
        link = Link(src, dst)
        if self.plane == "packets" and not self._advertises(dst):
            return self.target(link)
        # A Kafka broker advertises one address to whoever comes over a link, node or runner: with
        # packets that of the relay in the source's own pod, which both can dial.
        return f"{self.ip(self.relay(link))}:{self._link_ports[link]}"

    def outside(self, src: str, dst: str) -> str:
        """Where the runner dials `dst` over the link of `src`."""
        link = Link(src, dst)
        return self._reach(self.relay(link), self._link_ports[link])

    def target(self, link: Link) -> str:
        """Where a link leads, as seen from inside."""
        return f"{self.ip(link.dst)}:{self.target_port(link)}"

    def target_port(self, link: Link) -> int:
        """The port behind a link: a Kafka broker has one for each source."""
        if self._advertises(link.dst):
            return FIRST_LISTENER + self.spec.links_to(link.dst).index(link)
        return self.port(link.dst)

    def direct(self, name: str) -> str:
        """The runner's way to a node or member, round the links."""
        return self._reach(name, self.port(name))

    def control(self, relay: str) -> str:
        """The control port of the proxies in `relay`, for the runner."""
        return self._reach(relay, CONTROL_PORT)

    def port(self, name: str) -> int:
        if name not in self.spec.member_names:
            return NODE_PORT
        return KINDS[self.spec.member(name).kind].port

    def _advertises(self, name: str) -> bool:
        return name in self.spec.member_names and KINDS[self.spec.member(name).kind].advertises

    def _reach(self, container: str, port: int) -> str:
        if self.place.ports is None:
            return f"{self.ip(container)}:{port}"
        return f"127.0.0.1:{self._published[container, port]}"

    def _everywhere(self) -> Iterable[tuple[str, int]]:
        """Every (pod, port) that the runner dials."""
        for relay in self.relays:
            yield relay, CONTROL_PORT
        for link, port in self._link_ports.items():
            yield self.relay(link), port
        for name in (*self.spec.node_names, *self.spec.member_names):
            yield name, self.port(name)

    # --- the projects

    def pods(self) -> tuple[str, ...]:
        """The services that have an address of their own."""
        sources = self.relays if self.plane == "packets" else ()
        names = (*sources, *self.spec.node_names, *self.spec.member_names)
        return tuple(dict.fromkeys(names))

    def apps(self) -> dict[str, str]:
        """The Compose service of each node and member."""
        return {name: app(name) for name in (*self.spec.node_names, *self.spec.member_names)}

    def ground(self, name: str, images: Images, labels: Mapping[str, str]) -> dict[str, Any]:
        """The Compose file of the network, the pods and the link proxies, as a dictionary."""
        services: dict[str, Any] = {}
        if self.plane == "proxies":
            services[LINKS] = self._placed(LINKS, "links", images.service)
        for pod in self.pods():
            if self.plane == "packets" and pod in self.relays:
                services[pod] = self._placed(pod, "packet-pod", images.packets)
            else:
                services[pod] = self._placed(pod, "pod", images.service)
        subnet = {"subnet": f"{self.place.subnet}.0/24"}
        network = {"labels": dict(labels), "ipam": {"config": [subnet]}}
        return {
            "name": name,
            "services": _labelled(services, labels),
            "networks": {"default": network},
        }

    def project(
        self,
        name: str,
        images: Images,
        labels: Mapping[str, str],
        pods: Mapping[str, str],
        telemetry: Mapping[str, Path],
        mounts: Mapping[Path, str],
        files: Mapping[str, Path],
    ) -> dict[str, Any]:
        """The Compose file of the nodes and members, as a dictionary.

        `pods`: the container that each runs in; `telemetry`: each node's file; `mounts`: for nodes,
        read-only; `files`: a directory for each member that reads some.
        """
        services: dict[str, Any] = {}
        for node in self.spec.nodes:
            services[app(node.name)] = self._node(node, images, telemetry[node.name], mounts)
        for member in self.spec.members:
            services[app(member.name)] = self._member(member, images, files.get(member.name))
        for each, service in self.apps().items():
            services[service]["network_mode"] = f"container:{pods[each]}"
        volumes = {volume(each): {"labels": dict(labels)} for each in self.apps()}
        return {"name": name, "services": _labelled(services, labels), "volumes": volumes}

    def _placed(self, name: str, template: str, image: str) -> dict[str, Any]:
        ports = [
            f"127.0.0.1:{published}:{port}"
            for (container, port), published in self._published.items()
            if container == name
        ]
        return {
            **_extends(template),
            "image": image,
            "networks": {"default": {"ipv4_address": self.ip(name)}},
            **({"ports": ports} if ports else {}),
        }

    def _node(
        self, node: NodeSpec, images: Images, telemetry: Path, mounts: Mapping[Path, str]
    ) -> dict[str, Any]:
        volumes: list[dict[str, Any]] = [
            {"type": "volume", "source": volume(node.name), "target": NODE_DATA},
            _bind(telemetry, TELEMETRY, read_only=False),
            *(_bind(path, target, read_only=True) for path, target in mounts.items()),
        ]
        return {
            **_extends("node"),
            "image": images.service,
            "command": ["python", "-m", RUN_MODULE, node.module],
            "environment": _escaped(self.node_environment(node)),
            "volumes": volumes,
        }

    def node_environment(self, node: NodeSpec) -> dict[str, str]:
        """The node's own settings, and what only the testbed knows."""
        peers = [
            f"{peer}={self.inside(node.name, peer)}" for peer in self.spec.peers_of(node.name)
        ]
        given = {
            "NODE": node.name,
            "LISTEN": f"0.0.0.0:{NODE_PORT}",
            "PEERS": ",".join(peers),
            "DATA_DIR": NODE_DATA,
            "TELEMETRY": TELEMETRY,
        }
        settings = {f"{node.prefix}_{key}": value for key, value in given.items()}
        members = {
            self.spec.member(name).environment_key: self.inside(node.name, name)
            for name in self.spec.members_of(node.name)
        }
        return settings | members | dict(node.environment)

    def _member(
        self, member: MemberSpec, images: Images, files: Path | None
    ) -> dict[str, Any]:
        kind = KINDS[member.kind]
        service = {**_extends(kind.template), "image": images.members[member.kind]}
        service["volumes"] = [
            {"type": "volume", "source": volume(member.name), "target": kind.data},
            *([_bind(files, FILES, read_only=True)] if files else []),
        ]
        service |= _escaped(kind.service(member, self))
        return service


def _labelled(services: dict[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {**service, "labels": dict(labels), "pull_policy": "never"}
        for name, service in services.items()
    }


def _extends(template: str) -> dict[str, Any]:
    return {"extends": {"file": str(TEMPLATES), "service": template}}


def _bind(source: Path, target: str, *, read_only: bool) -> dict[str, Any]:
    # `selinux: z` lets containers read it where SELinux is on; elsewhere it means nothing.
    bind = {"create_host_path": False, "selinux": "z"}
    return {"type": "bind", "source": _escape(str(source)), "target": target,
            "read_only": read_only, "bind": bind}  # fmt: skip


def _escape(text: str) -> str:
    """Compose replaces $NAME in every value; $$ is a dollar."""
    return text.replace("$", "$$")


def _escaped(value: Any) -> Any:
    """The same value with every text in it escaped, however deep."""
    if isinstance(value, str):
        return _escape(value)
    if isinstance(value, Mapping):
        return {key: _escaped(each) for key, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list) else value


def as_text(project: Mapping[str, Any]) -> str:
    """As a file for `docker compose -f`: JSON is YAML too."""
    return json.dumps(project, indent=1) + "\n"
