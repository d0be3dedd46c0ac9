"""What a cluster becomes as a Compose project, without any engine: addresses, limits, agreement."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from labs.harness.links.control import Link
from labs.harness.testbed import compose_images
from labs.harness.testbed.compose_project import Images, Layout, Place, Plane, as_text
from labs.harness.testbed.compose_slots import FIRST_PORT, PORTS_EACH, SLOTS
from labs.harness.testbed.description import ClusterSpec, MemberSpec, NodeSpec, kv_cluster
from labs.harness.testbed.members import KINDS, kafka

ROOT = Path(__file__).resolve().parents[3]
IMAGES = Images("service:1", "packets:1", {"redis": "redis:1", "kafka": "kafka:1"})
MEMBERS = (MemberSpec("redis", "redis"), MemberSpec("kafka", "kafka"))
FULL = ClusterSpec(
    "full",
    tuple(NodeSpec(f"n{i}", "kv", {"KV_DOLLAR": "$HOME"}) for i in range(1, 10)),
    ("c1", "c2"),
    members=MEMBERS,
)
ROUTED = Place("10.213.7")
PUBLISHED = Place("10.213.7", range(FIRST_PORT, FIRST_PORT + PORTS_EACH))
PLANES: tuple[Plane, ...] = ("proxies", "packets")


def services_of(layout: Layout) -> dict[str, dict[str, object]]:
    telemetry = {node: Path(f"/{node}") for node in layout.spec.node_names}
    pods = {name: f"pod of {name}" for name in (*layout.spec.node_names, *layout.spec.member_names)}
    labels = {"owner": "me"}
    ground = layout.ground("g", IMAGES, labels)
    project = layout.project("p", IMAGES, labels, pods, telemetry, {}, {})
    assert json.loads(as_text(project)) == project
    assert json.loads(as_text(ground)) == ground
    services: dict[str, dict[str, object]] = ground["services"] | project["services"]
    return services


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("place", [ROUTED, PUBLISHED], ids=["routed", "published"])
def test_every_link_has_an_address_of_its_own(place: Place, plane: Plane) -> None:
    """No two links, nor a link and a way round it, are the same "host:port"; none runs short."""
    layout = Layout(FULL, place, plane)
    addresses = [layout.outside(*link) for link in FULL.links]
    addresses += [layout.direct(name) for name in (*FULL.node_names, *FULL.member_names)]
    addresses += [layout.control(relay) for relay in layout.relays]

    assert len(set(addresses)) == len(addresses)
    if place.ports is not None:
        assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_the_ports_of_a_run_are_nobodys_outgoing_ones() -> None:
    """A killed node's port may not be given away before it is started again."""
    last = FIRST_PORT + len(SLOTS) * PORTS_EACH

    assert FIRST_PORT > 1024
    assert last < 32_768, "Linux gives ports from here on to outgoing connections"


@pytest.mark.parametrize("plane", PLANES)
def test_a_node_is_told_its_own_links(plane: Plane) -> None:
    """Peers and members over its own links: at the proxies, or past its own packet filter."""
    layout = Layout(FULL, ROUTED, plane)
    told = layout.node_environment(FULL.nodes[0])

    peers = dict(peer.split("=") for peer in told["KV_PEERS"].split(","))
    assert set(peers) == set(FULL.node_names) - {"n1"}
    for peer, address in peers.items():
        assert address == layout.inside("n1", peer)
        assert (address == layout.direct(peer)) == (plane == "packets")
    assert told["MEMBER_REDIS"] == layout.inside("n1", "redis")


def test_a_dollar_in_a_setting_stays_one() -> None:
    """Compose would replace $HOME by what the runner's environment has."""
    node = services_of(Layout(FULL, ROUTED))["n1-app"]

    assert isinstance(node["environment"], dict)
    assert node["environment"]["KV_DOLLAR"] == "$$HOME"


def test_only_what_is_needed_is_started() -> None:
    """A cluster without members has no Redis and no Kafka; one without peers no links of theirs."""
    three = services_of(Layout(kv_cluster(3, protocol="raft"), ROUTED))

    assert set(three) == {"links", *(f"n{i}{end}" for i in (1, 2, 3) for end in ("", "-app"))}


def test_a_broker_has_a_listener_for_each_source() -> None:
    """Each advertises the link by which its clients come, and the runner's own way is another."""
    layout = Layout(FULL, PUBLISHED)
    settings = kafka.Kafka().settings(MEMBERS[1], layout)
    listeners = settings["advertised.listeners"].split(",")
    advertised = dict(each.split("://") for each in listeners)

    assert advertised["FROM_C1"] == layout.outside("c1", "kafka")
    assert advertised["FROM_N1"] == layout.inside("n1", "kafka")
    assert advertised["DIRECT"] == layout.direct("kafka")
    binds = dict(each.split("://") for each in settings["listeners"].split(","))
    assert len(set(binds.values())) == len(binds)
    for link in FULL.links_to("kafka"):
        _, port = layout.target(link).split(":")
        assert binds[f"FROM_{link.src.upper()}"].endswith(f":{port}")


def test_with_packets_each_sources_pod_may_change_its_own_rules_and_no_other() -> None:
    """NET_ADMIN is for pods that links start from, in their own namespace; members have none."""
    services = services_of(Layout(FULL, ROUTED, "packets"))

    assert "links" not in services
    for name, service in services.items():
        template = service["extends"]["service"]  # type: ignore[index]
        may = name in (*FULL.node_names, *FULL.clients)
        assert (template == "packet-pod") == may, name


def test_versions_agree() -> None:
    """The default images are named in several places, for those who read only one of them."""
    templates = (ROOT / "compose" / "services.yaml").read_text()
    whole = (ROOT / "compose.yaml").read_text()
    dockerfile = (ROOT / "Dockerfile").read_text()
    official = compose_images.OFFICIAL

    assert f"ARG PYTHON_IMAGE={official['python']}\n" in dockerfile
    assert f"${{PYTHON_IMAGE:-{official['python']}}}" in whole
    for name, kind in KINDS.items():
        if kind.template != "member":  # free play has it too
            assert f"${{{name.upper()}_IMAGE:-{kind.image}}}" in templates
            assert f"{name.upper()}_IMAGE={kind.image}" in whole
    for image in official.values():
        assert re.search(r":v?\d+\.\d+", image), f"{image} is not pinned"


def test_every_kind_has_a_stand_in() -> None:
    """compose/stand-ins: a line for each image that a run may need where no registry is reached."""
    lines = (ROOT / "compose" / "stand-ins").read_text().splitlines()
    images = [line.split()[0] for line in lines if line and not line.startswith("#")]

    assert sorted(images) == sorted(compose_images.OFFICIAL)


def test_the_dockerfile_builds_on_every_builder() -> None:
    """`RUN --mount`, `--chmod`, `--link` and heredocs fail on some; `# syntax=` pulls an image."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    for line in lines:
        assert not line.startswith("# syntax"), line
        if not line.startswith("#"):
            assert not re.search(r"--(mount|chmod|link|exclude|parents|checksum)\b|<<", line), line


def test_free_play_has_every_link_once() -> None:
    """compose/links.json: from each client and node to each node, and to Redis; ports agree."""
    links = json.loads((ROOT / "compose" / "links.json").read_text())
    nodes = [f"n{i}" for i in range(1, 6)]
    spec = ClusterSpec(
        "free",
        tuple(NodeSpec(node, "kv") for node in nodes),
        ("c1", "c2"),
        members=(MemberSpec("redis", "redis"),),
    )
    ports = {Link(each["src"], each["dst"]): each["port"] for each in links}

    assert set(ports) == set(spec.links)
    assert len(set(ports.values())) == len(links)
    whole = (ROOT / "compose.yaml").read_text()
    for node in nodes:
        peers = ",".join(f"{b}=links:{ports[Link(node, b)]}" for b in nodes if b != node)
        assert f"KV_PEERS: {peers}\n" in whole
        assert f"MEMBER_REDIS: links:{ports[Link(node, 'redis')]}\n" in whole
