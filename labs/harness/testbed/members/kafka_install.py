"""Apache Kafka on this machine: where it is, what runs it, and how it is fetched (`make kafka`).

Kafka's artefacts come through Maven, from wherever this machine's Maven is told to look, with
their checksums enforced. They lie outside the repository, in
`${XDG_CACHE_HOME:-~/.cache}/faultline/kafka-<version>`:

- `libs/`: the broker and its runtime class path;
- `formatted/`: a data directory as `kafka-storage format` leaves it (two small files). Each broker
  starts from a copy, which saves a JVM of its own at each first start;
- `classes.jsa`: the broker's classes, ready to be mapped (`kafka_classes`).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.members import kafka_broker, kafka_classes
from labs.harness.testbed.members.kept import kept, making

POM = Path(__file__).with_name("kafka-pom.xml")
VERSION = "4.3.0"
JAVA_LEAST = 17
FETCH_WITHIN_S = 600
CLUSTER_ID = "faultline-toy-cluster0"  # 22 characters, as an id of Kafka's has
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

# The serial collector and the first compiler alone: a broker of a toy's size is ready in half the
# time and leaves the other core to the nodes. Kafka prints its 400 settings unless told not to.
JAVA_OPTIONS = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


class Missing(TestbedError):
    """What is missing for Apache Kafka, and what to type."""


def home() -> Path:
    """Where this version of Kafka is, or would be."""
    return kept(f"kafka-{VERSION}")


def missing() -> str:
    """Why Apache Kafka can't be run here, and what to type; empty when it can."""
    if not home().is_dir():
        return f"Apache Kafka {VERSION} is not here: type make kafka (needs Java and Maven)"
    try:
        java()
    except Missing as error:
        return str(error)
    return ""


def java() -> str:
    """The path of a `java` that is new enough. Raises Missing."""
    by_home = os.environ.get("JAVA_HOME")
    found = f"{by_home}/bin/java" if by_home else shutil.which("java")
    remedy = f"install Java {JAVA_LEAST} or newer (Debian: apt-get install default-jre-headless)"
    if not found or not os.access(found, os.X_OK):
        raise Missing(f"Java is not here{f' ({found})' if found else ''}: {remedy}")
    version = _java_version(found)
    if not version:  # macOS has a `java` that only says where to get one
        raise Missing(f"{found} does not run: {remedy}")
    if version < JAVA_LEAST:
        raise Missing(f"{found} is Java {version}: {remedy}, or set JAVA_HOME to it")
    return found


@functools.cache
def _java_version(path: str) -> int:
    """17 of Java 17.0.15, 8 of 1.8.0; 0 when it says nothing of the kind."""
    asked = subprocess.run(
        [path, "-version"], capture_output=True, text=True, check=False, timeout=30
    )
    version = re.search(r'version "(?:1\.)?(\d+)', asked.stderr)
    return int(version[1]) if version else 0


def command(main_class: str, *arguments: str, libs: Path | None = None) -> list[str]:
    """The command that runs one of Kafka's classes. Raises Missing."""
    class_path = f"{libs or home() / 'libs'}/*"
    shared = kafka_classes.options(home())
    return [java(), *JAVA_OPTIONS, *shared, "-cp", class_path, main_class, *arguments]


def fetch() -> str:
    """Fetch Kafka unless it is here. Returns a line for the reader.

    Raises:
        Missing: Java or Maven is missing, or Maven did not get the artefacts.
    """
    if home().is_dir():
        java()
        _write_classes()
        return f"Apache Kafka {VERSION} is here: {home()}"
    java()
    maven = shutil.which("mvn")
    if maven is None:
        raise Missing("Maven is not here: install it (Debian: apt-get install maven)")
    with making(home()) as draft:
        _copy_artefacts(maven, draft.parent, draft / "libs")
        _format(draft)
    _write_classes()
    return f"Apache Kafka {VERSION} fetched: {home()}"


def _write_classes() -> None:
    # Where they lie for good: the class path is written down with them.
    if not (home() / kafka_classes.FILE).exists():
        kafka_classes.write(home(), command)


def _copy_artefacts(maven: str, draft: Path, libs: Path) -> None:
    shutil.copy(POM, draft / "pom.xml")
    goal = [COPY_DEPENDENCIES, "-DincludeScope=runtime", f"-DoutputDirectory={libs}"]
    flags = ["--quiet", "--batch-mode", "--strict-checksums", "--file", str(draft / "pom.xml")]
    _run([maven, *flags, *goal], "Maven did not get Apache Kafka's artefacts")
    if not (libs / f"kafka_2.13-{VERSION}.jar").exists():
        raise Missing(f"Maven brought another version than {VERSION}: see {POM.name}")


def _format(whole: Path) -> None:
    """Leave in `formatted` what `kafka-storage format` makes of an empty directory."""
    nowhere = kafka_broker.Listener("127.0.0.1:9092", "127.0.0.1:9092")
    data = whole / "formatted"
    settings = kafka_broker.broker_settings({}, nowhere, "127.0.0.1:9093", str(data), {})
    file = whole / "format.properties"
    file.write_text(kafka_broker.properties(settings))
    tool = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(file)]
    _run(command(*tool, libs=whole / "libs"), "Kafka's storage tool failed")
    file.unlink()


def _run(command: list[str], failed: str) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=FETCH_WITHIN_S,
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{failed} within {FETCH_WITHIN_S} s") from None
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-12:])
        raise Missing(f"{failed} (exit code {done.returncode}); it said last:\n{last}")


def main() -> int:
    """`make kafka`: 0, or 2 and a message of what to type."""
    try:
        sys.stdout.write(fetch() + "\n")
    except Missing as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
