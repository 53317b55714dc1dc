"""The wheel holds all that the demo needs: installed elsewhere, it walks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASSET = "koboshi/assets/h1_walk/controller.safetensors"

_WALK = """
from importlib.resources import files
from koboshi.bench.rollout import rollout
from koboshi.envs import Env
from koboshi.faults import Fault, Scenario, Scenarios
from koboshi.stages import evaluate
from koboshi.tasks import make_task

task = make_task("h1-walk")
path = files("koboshi").joinpath("assets/h1_walk/controller.safetensors")
stored = evaluate.load(path, task)
scenarios = Scenarios("unitree_h1", 7, (Scenario((Fault("left_knee", onset_s=1.0),), (0.8, 0.0, 0.0), 1.0),))
walked = rollout(task.env, stored.learned(), scenarios, 1.0)
assert len(walked.velocity) == 100 and int(walked.end[0]) == 100, f"it fell at step {int(walked.end[0])}"
assert float(walked.velocity[50:, 0, 0].mean()) > 0.3
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy, since building writes beside the sources."""
    pytest.importorskip("setuptools")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(out)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel alone in it."""
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return target


def run(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Python elsewhere, with the installed package before the one under test."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    found = subprocess.run([sys.executable, *command], cwd=installed, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    sources = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src/koboshi").rglob("*.py")}
    assert sources <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"koboshi"}
    assert any(name.endswith("LICENSE") for name in names)


def test_the_command_runs_from_it(installed: Path) -> None:
    where = run(installed, "-c", "import koboshi; print(koboshi.__file__)").stdout.strip()
    assert Path(where) == installed / "koboshi/__init__.py"
    assert "h1-walk" in run(installed, "-m", "koboshi", "list").stdout


def test_the_demos_first_seconds(installed: Path) -> None:
    if not (ROOT / "src" / ASSET).exists():
        pytest.skip("no trained controller is shipped yet (src/koboshi/assets/h1_walk)")
    assert (installed / ASSET).exists()
    run(installed, "-c", _WALK)
