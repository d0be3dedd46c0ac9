"""RabbitMQ's modules where it finds them at once: of its start, looking for them is most.

As packaged it searches ninety directories for each of a thousand modules, most of them of plugins
that are not enabled, and reads the plugins' schemas all the same. And wherever it collects what its
applications declare (boot steps, feature flags, upgrades) it loads every module of every
application there is, also of Erlang's own, which declare nothing of RabbitMQ's. So what it will ask
for is linked into one directory that is searched first, and there others' applications list no
modules: those are loaded when they are called. The list is for release upgrades (OTP's `app(4)`)
and has no other reader here. CPU of a start, measured alone: 5.8 s as packaged, 2.8 s linked,
2.0 s with those lists empty.

The links are made once (0.1 to 0.5 s, of which a start would wait for each) and kept for as long
as RabbitMQ and Erlang are what they are: a version is part of each application's directory.
Whatever is not found here is found where it was, so a link too few costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from labs.harness.testbed.members.kept import kept, making

# Started by name; the rest follows from what each application says it needs.
STARTED = ("rabbit", "mnesia")
# Erlang looks into the directories of these two before all others as it is.
FIRST_ANYWAY = frozenset({"kernel", "stdlib"})
LIST = r"\{{\s*{}\s*,\s*\[([^\]]*)\]\s*\}}"
NEEDS, MODULES = re.compile(LIST.format("applications")), re.compile(LIST.format("modules"))


def quick_to_find(plugins: Path) -> dict[str, str]:
    """The variables that make `rabbitmq-server` use the links; they are made if they are not there.

    `plugins`: the directory of RabbitMQ's applications. Raises OSError.
    """
    erlang = Path(shutil.which("erl") or "").resolve().parents[1] / "lib"
    needed = list(_needed({**_applications(erlang), **_applications(plugins)}))
    key = hashlib.sha256("\n".join(map(str, needed)).encode()).hexdigest()[:16]
    whole = kept(f"rabbitmq-{key}")
    if not whole.is_dir():
        _make(whole, needed, plugins)
    known = whole / "known"
    found = {"RABBITMQ_SERVER_CODE_PATH": str(whole / "modules")}
    return found | ({"RABBITMQ_PLUGINS_DIR": str(known)} if any(known.iterdir()) else {})


def _applications(library: Path) -> dict[str, Path]:
    """The applications of a library by name, each with the directory of its modules."""
    return {path.stem: path.parent for path in library.glob("*/ebin/*.app")}


def _needed(applications: Mapping[str, Path]) -> Iterator[Path]:
    """The directories of what is started, and of what that needs, and so on."""
    asked = [name for name in STARTED if name in applications]
    for name in asked:
        yield applications[name]
        needs = NEEDS.search((applications[name] / f"{name}.app").read_text())
        names = re.findall(r"\w+", needs[1]) if needs else []
        asked += [
            each
            for each in dict.fromkeys(names)
            if each in applications and each not in asked and each not in FIRST_ANYWAY
        ]


def _make(whole: Path, needed: list[Path], plugins: Path) -> None:
    with making(whole) as draft:
        for name in ("known", "modules"):
            (draft / name).mkdir()
        for itself in plugins.glob("rabbit-[0-9]*"):  # no plugins, and so none of their schemas
            (draft / "known" / itself.name).symlink_to(itself)
        for directory in needed:
            _link(directory, draft / "modules")


def _link(directory: Path, modules: Path) -> None:
    for path in directory.glob("*.beam"):
        with contextlib.suppress(FileExistsError):
            (modules / path.name).symlink_to(path)
    for path in directory.glob("*.app"):
        if not path.name.startswith("rabbit"):
            (modules / path.name).write_text(MODULES.sub("{modules, []}", path.read_text()))
