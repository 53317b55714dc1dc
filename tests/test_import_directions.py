"""The house stands only while imports run one way; these tests hold that, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import koboshi

PACKAGE = Path(koboshi.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

FOUNDATION = {"errors", "vec_env", "runs", "config", "devices"}
PHYSICS = FOUNDATION | {"robots", "sim", "faults", "terrain"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "vec_env": {"errors"},
    "devices": {"errors"},
    "runs": {"errors"},
    "config": {"errors", "runs"},
    "robots": FOUNDATION,
    "nets": FOUNDATION,
    "data": FOUNDATION,
    "sim": FOUNDATION | {"robots"},
    "faults": FOUNDATION | {"robots", "sim"},
    "terrain": FOUNDATION | {"robots"},
    "envs": PHYSICS,
    "policies": FOUNDATION | {"nets"},
    "algos": FOUNDATION | {"nets", "data", "policies"},
    "detect": PHYSICS | {"nets", "data", "envs"},
    "specialists": PHYSICS | {"nets", "data", "envs", "algos", "detect", "policies"},
    "view": FOUNDATION | {"robots"},
    "bench": PHYSICS | {"nets", "data", "envs", "algos", "detect", "specialists", "policies", "view"},
    "live": PHYSICS | {"envs", "bench", "specialists", "view"},
    "tasks": PHYSICS | {"nets", "data", "envs", "algos", "detect", "specialists", "policies", "bench"},
}
ALLOWED["adapters"] = FOUNDATION
ALLOWED["bench"].add("adapters")
ALLOWED["deploy"] = {"errors"}
ALLOWED["export"] = FOUNDATION | {"deploy", "envs", "nets", "robots", "specialists"}
ALLOWED["plugins"] = {"errors", "config", "robots", "faults", "nets", "tasks"}
ALLOWED["stages"] = set(ALLOWED)
ALLOWED["cli"] = set(ALLOWED)
ALLOWED["__main__"] = {"cli"}
"""House -> the houses it may import from. None imports from `cli` but the module that starts it."""


def house(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_houses(path: Path) -> Iterator[str]:
    """The houses that a file imports from, also inside its functions and by relative imports."""
    here = ["koboshi", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*here[: len(here) - node.level + 1], node.module or ""]) if node.level else node.module
            names = [f"{(base or '').rstrip('.')}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("koboshi."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    own = house(path)
    found = set(imported_houses(path)) - {own}
    allowed = ALLOWED.get(own, set())
    assert found <= allowed, f"{own} may import from {sorted(allowed)}, not from {sorted(found - allowed)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_importing_koboshi_imports_nothing_heavy() -> None:
    # Only the GPU backend may import Warp at its top, and only a Gymnasium environment Gymnasium: nobody imports them
    # without asking for them.
    # __main__ is no module to import: it is the command.
    modules = [
        ".".join(["koboshi", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
        for path in FILES
        if path.relative_to(PACKAGE).as_posix() not in ("sim/gpu.py", "adapters/to_gymnasium.py", "__main__.py")
    ]
    heavy = ["matplotlib", "warp", "pyarrow", "tensorboard", "gymnasium", "imageio", "onnx", "trimesh", "viser"]
    code = f"""
import importlib, os, sys, torch
environment = dict(os.environ)
for module in {modules!r}:
    importlib.import_module(module)
assert dict(os.environ) == environment, "an import changed the environment"
print(*(name for name in {heavy!r} if name in sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == []
