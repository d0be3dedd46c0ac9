"""The shape of the repository, held by a test: layout, import rules, sizes, habits.

Goal: what DESIGN and STYLE ask for stays true without a reviewer's eye.
Method: parse every Python file with `ast` and look.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for top in ("services", "labs", "tests")
    for path in (ROOT / top).rglob("*.py")
    if "__pycache__" not in path.parts
)
LABS = sorted(path for path in (ROOT / "labs").glob("*.py") if not path.stem.startswith("_"))

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 400
TEST_MODULE_LINES_MAX = 600
LAB_LINES_MAX = 150
LINE_LENGTH_MAX = 100
PRAGMA = re.compile(r"\s+# (noqa|type: ignore|fmt: skip).*$")

# A pure core decides; I/O, time and chance are its inputs.
IMPURE = {
    "asyncio",
    "time",
    "socket",
    "os",
    "threading",
    "subprocess",
    "selectors",
    "signal",
    "datetime",
    "secrets",
    "uuid",
    "pathlib",
    "io",
    "aiohttp",
    "msgspec",
    "structlog",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every absolute module name that `path` imports, with its line."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: relative import"
            yield node.module or "", node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def below(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def allowed(path: Path, module: str) -> bool:
    """May the file at `path` import `module`? Dependencies run one way."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "services":
        if below(module, "labs", "tests"):
            return False
        package = parts[1]
        if not below(module, "services"):
            return package not in ("protocols", "resilience") or module.split(".")[0] not in IMPURE
        may = {
            "protocols": ("services.protocols",),
            "resilience": ("services.resilience",),
            "chassis": ("services.chassis", "services.protocols"),
        }.get(
            package,
            (f"services.{package}", "services.chassis", "services.protocols",
             "services.resilience"),
        )  # fmt: skip
        # A service calls another by that one's client, as anybody else would.
        return module == "services" or below(module, *may) or module.split(".")[2:3] == ["client"]
    if parts[0] == "labs" and below(module, "services"):
        # The errors say what is definite and what is not: clients and labs share that vocabulary.
        if path.parent.name == "simulation" and below(
            module, "services.chassis.machine", "services.chassis.service"
        ):
            return True  # a simulation is a machine for the services to run on
        return module == "services" or below(
            module, "services.protocols", "services.resilience", "services.chassis.errors"
        ) or module.split(".")[2:3] == ["client"]  # fmt: skip
    return not (parts[0] == "labs" and below(module, "tests"))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_dependencies_run_one_way(path: Path) -> None:
    """labs → services.<x>.client, services.protocols; services.<x> → chassis, protocols,
    resilience, services.<y>.client; chassis → protocols; protocols and resilience → the pure
    standard library."""
    wrong = [f"{relative(path)}:{line} imports {module}"
             for module, line in imports(path) if not allowed(path, module)]  # fmt: skip
    # `from services.kv import client` shows as services.kv and services.kv.client: judge the latter
    wrong = [each for each in wrong if not re.search(r"imports services\.[a-z_]+$", each)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_sizes(path: Path) -> None:
    """Functions a screenful, modules one idea, a lab one page."""
    text = path.read_text()
    lines = text.splitlines()
    limit = MODULE_LINES_MAX
    if path in LABS:
        limit = LAB_LINES_MAX
    elif path.parts[len(ROOT.parts)] == "tests":
        limit = TEST_MODULE_LINES_MAX
    assert len(lines) <= limit, f"{relative(path)} has {len(lines)} lines; at most {limit}"
    for number, line in enumerate(lines, 1):
        prose = PRAGMA.sub("", line)  # as ruff counts: a pragma can't be broken
        assert len(prose) <= LINE_LENGTH_MAX, f"{relative(path)}:{number} is {len(prose)} long"
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, (
                f"{relative(path)}:{node.lineno} {node.name} has {length} lines"
            )


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_opens_with_its_purpose(path: Path) -> None:
    """A module that holds anything says first what it is for."""
    module = parse(path)
    if module.body:
        assert ast.get_docstring(module), f"{relative(path)} has no docstring"


def calls(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def test_labs_wait_for_conditions_and_not_for_time() -> None:
    """No `sleep` in a lab file: `until(condition, within_s=…)`."""
    wrong = [f"{relative(path)}:{line}" for path in LABS for name, line in calls(path)
             if name.split(".")[-1] == "sleep"]  # fmt: skip
    assert not wrong, wrong


def test_services_take_the_time_from_their_clock() -> None:
    """Time comes from services/chassis/clock.py alone, so that a lab can skew one node's clock."""
    clock = ROOT / "services" / "chassis" / "clock.py"
    forbidden = {"time.time", "time.monotonic", "time.time_ns", "time.monotonic_ns",
                 "datetime.now", "datetime.utcnow", "datetime.datetime.now"}  # fmt: skip
    wrong = [f"{relative(path)}:{line} calls {name}" for path in SOURCES
             if path.is_relative_to(ROOT / "services") and path != clock
             for name, line in calls(path) if name in forbidden]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_nothing_prints_by_accident() -> None:
    """Leftover debug prints; breakpoints."""
    wrong = [f"{relative(path)}:{line} calls {name}" for path in SOURCES
             for name, line in calls(path) if name in ("breakpoint", "pdb.set_trace")]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_lock_files_carry_hashes_and_no_hosts() -> None:
    """Lock files carry versions and hashes, no hosts."""
    for name in (
        "requirements-report.lock",
        "requirements.lock",
        "requirements-embedded.lock",
        "requirements-test.lock",
    ):
        text = (ROOT / name).read_text()
        assert "://" not in text, f"{name} names a host"
        for line in text.splitlines():
            if "==" in line:
                assert line.endswith("\\"), f"{name}: {line} has no hash"


def test_the_top_level_is_as_designed() -> None:
    """services/ labs/ tests/ Makefile README.md, and nothing that a user would not expect."""
    for name in ("services", "labs", "tests", "Makefile", "README.md", "CHANGELOG.md", "LICENSE",
                 "pyproject.toml", "requirements.lock", ".ci/run"):  # fmt: skip
        assert (ROOT / name).exists(), f"{name} is missing"
