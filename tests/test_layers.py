"""The house stands: imports go down only, and importing it stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxinf

PACKAGE = Path(jaxinf.__file__).parent
FLOORS = [
    {"typing", "errors"},
    {"engine"},
    {"adapters", "datasets", "evaluation", "models"},
    {"influence", "membership", "valuation"},
    {"applications"},
    {"__init__"},  # the package's face shows what the three subsystems offer
    {"report"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# typing is the ground that errors stands on
ALLOWED = {("errors", "typing")}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def rooms_imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "jaxinf":
            for alias in node.names:
                names.add(f"jaxinf.{alias.name}" if alias.name in FLOOR else "jaxinf")
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    ours = [name.split(".") for name in names if name.split(".")[0] == "jaxinf"]
    return {parts[1] if len(parts) > 1 else "__init__" for parts in ours}


def identifiers(tree: ast.AST) -> set[str]:
    """Names that the code uses; docstrings and other strings do not count."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.alias):
            names |= set(node.name.split("."))
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    room = room_of(path)
    for other in rooms_imported(ast.parse(path.read_text())) - {room}:
        down = FLOOR[other] < FLOOR[room] or (room, other) in ALLOWED
        assert down, f"{room} (floor {FLOOR[room]}) imports {other} (floor {FLOOR[other]})"


def test_every_room_has_a_floor():
    assert {room_of(path) for path in SOURCES} <= set(FLOOR)


def test_one_file_knows_the_parallel_transforms():
    users = {
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if identifiers(ast.parse(path.read_text())) & {"shard_map", "pmap"}
    }
    assert users == {"engine/mesh.py"}


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_stays_light():
    loaded = set(run_python("import sys, jaxinf; print(*sys.modules)").split())
    assert "jaxinf" in loaded
    assert not loaded & {"flax", "matplotlib", "ott", "sklearn", "torch", "typer"}


def test_importing_every_module_touches_no_device():
    code = """
import importlib, pkgutil, jaxinf
for module in pkgutil.walk_packages(jaxinf.__path__, "jaxinf."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
"""
    assert run_python(code).split() == ["False"]
