"""RabbitMQ's modules: what it needs is found at once, and what it asks is not asked of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from labs.harness.testbed.members import rabbitmq_modules
from labs.harness.testbed.members.rabbitmq_modules import quick_to_find

Library = dict[str, tuple[str, list[str]]]
# What an application needs, and its modules.
RABBIT: Library = {
    "rabbit-3.10.8": ("kernel, stdlib, ssl, ranch", ["rabbit", "rabbit_queue"]),
    "ranch-2.1.0": ("kernel, stdlib", ["ranch"]),
    "rabbitmq_shovel-3.10.8": ("kernel, rabbit", ["rabbit_shovel"]),
}
ERLANG: Library = {
    "kernel-8.5": ("", ["code"]),
    "stdlib-4.2": ("kernel", ["lists"]),
    "mnesia-4.21": ("kernel, stdlib", ["mnesia"]),
    "ssl-10.8": ("crypto", ["ssl"]),
    "crypto-5.1": ("kernel", ["crypto"]),
    "wx-2.2": ("kernel", ["wx"]),
}


def fill(directory: Path, library: Library) -> Path:
    for itself, (needs, modules) in library.items():
        name = itself.partition("-")[0]
        ebin = directory / itself / "ebin"
        ebin.mkdir(parents=True)
        for each in modules:
            (ebin / f"{each}.beam").touch()
        (ebin / f"{name}.app").write_text(
            f'{{application,{name},\n [{{vsn,"1"}},\n  {{modules, [{", ".join(modules)}]}},\n'
            f"  {{applications,[\n    {needs}]}}]}}.\n"
        )
    return directory


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RabbitMQ's own applications, beside an Erlang, with nothing kept from earlier runs."""
    erl = tmp_path / "erlang" / "bin" / "erl"
    fill(tmp_path / "erlang" / "lib", ERLANG)
    monkeypatch.setattr(rabbitmq_modules.shutil, "which", lambda _: str(erl))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fill(tmp_path / "plugins", RABBIT)


def test_what_rabbitmq_needs_is_linked_and_nothing_else(plugins: Path) -> None:
    """No plugins, nothing of Erlang's that nobody asks for."""
    found = quick_to_find(plugins)

    modules = Path(found["RABBITMQ_SERVER_CODE_PATH"])
    linked = {each.stem: each.resolve() for each in modules.glob("*.beam")}
    assert linked.keys() == {"rabbit", "rabbit_queue", "ranch", "mnesia", "ssl", "crypto"}
    assert linked["ranch"] == plugins / "ranch-2.1.0" / "ebin" / "ranch.beam"
    known = Path(found["RABBITMQ_PLUGINS_DIR"])
    assert [each.name for each in known.iterdir()] == ["rabbit-3.10.8"]


def test_others_have_no_modules_to_be_asked(plugins: Path) -> None:
    """The rest of what they say stays; RabbitMQ's own boot steps and upgrades are to be found."""
    modules = Path(quick_to_find(plugins)["RABBITMQ_SERVER_CODE_PATH"])

    said = {each.stem: each.read_text() for each in modules.glob("*.app")}
    assert said.keys() == {"ranch", "mnesia", "ssl", "crypto"}
    assert said["ssl"] == (
        '{application,ssl,\n [{vsn,"1"},\n  {modules, []},\n  {applications,[\n    crypto]}]}.\n'
    )


def test_they_are_linked_once_for_each_version(
    plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade's directories have another name, and what was linked before is not theirs."""
    first = quick_to_find(plugins)
    with monkeypatch.context() as no_more:
        no_more.setattr(rabbitmq_modules, "_make", None)
        assert quick_to_find(plugins) == first

    (plugins / "ranch-2.1.0").rename(plugins / "ranch-2.2.0")
    upgraded = quick_to_find(plugins)

    assert upgraded != first
    assert (Path(upgraded["RABBITMQ_SERVER_CODE_PATH"]) / "ranch.beam").exists()


def test_who_is_second_to_make_them_takes_the_first_ones(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs begin at the same time."""
    make = rabbitmq_modules._make

    def twice(*given: object) -> None:
        make(*given)  # type: ignore[arg-type]
        make(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(rabbitmq_modules, "_make", twice)
    modules = Path(quick_to_find(plugins)["RABBITMQ_SERVER_CODE_PATH"])

    assert (modules / "ranch.beam").exists()
    assert list((tmp_path / "cache" / "faultline").iterdir()) == [modules.parent]
