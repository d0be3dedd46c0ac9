"""Kafka's classes are written down once, and their absence costs nothing but time."""

from __future__ import annotations

from pathlib import Path

import pytest

from labs.harness.testbed.members import kafka_classes, kafka_install


def test_without_the_file_nothing_is_asked_of_the_jvm(tmp_path: Path) -> None:
    assert kafka_classes.options(tmp_path) == []
    (tmp_path / kafka_classes.FILE).touch()
    assert kafka_classes.options(tmp_path) == [
        f"-XX:SharedArchiveFile={tmp_path / kafka_classes.FILE}"
    ]


def test_a_broker_that_does_not_start_leaves_nothing(tmp_path: Path) -> None:
    """Kafka stays usable: it starts as slowly as before."""
    (tmp_path / "formatted").mkdir()

    assert not kafka_classes.write(tmp_path, lambda *_: ["/bin/false"])
    assert [each.name for each in tmp_path.iterdir()] == ["formatted"]


@pytest.mark.slow
def test_a_broker_that_starts_leaves_its_classes() -> None:
    """The file is of this machine's JVM and class path, and moved into place when it is whole."""
    if missing := kafka_install.missing():
        pytest.skip(missing)
    kafka_install.fetch()
    archive = kafka_install.home() / kafka_classes.FILE

    assert archive.stat().st_size > 1 << 20
    assert f"-XX:SharedArchiveFile={archive}" in kafka_install.command("kafka.Kafka")
    assert not list(kafka_install.home().glob(".classes-*"))
