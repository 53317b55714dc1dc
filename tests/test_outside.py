"""The examples of things from outside: a robot from a bare MJCF, sound by `koboshi check`, and a task of its own."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from koboshi import runs
from koboshi.robots import JointMap, Robot, physics_spec
from koboshi.stages.check import check

FOLDER = Path(__file__).parents[1] / "examples" / "outside"


@pytest.fixture(scope="module")
def pup() -> Robot:
    robots = runpy.run_path(str(FOLDER / "robot.py"))["ROBOTS"]
    assert list(robots) == ["pup"]
    return robots["pup"]


def test_the_files_are_short() -> None:
    assert len((FOLDER / "robot.py").read_text().splitlines()) <= 60
    assert len((FOLDER / "task.py").read_text().splitlines()) <= 100


def test_it_is_sound(pup: Robot, tmp_path: Path) -> None:
    assert check(pup, tmp_path) == []
    assert pup.mirror_ids.tolist() == [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]
    assert pup.mirror_feet.tolist() == [1, 0, 3, 2]
    assert set(pup.groups["rear_right_leg"]) == {"RH_HAA", "RH_HFE", "RH_KFE"}


def test_it_stands(pup: Robot) -> None:
    """Two seconds in its default pose: level, on all four feet, no lower than it should."""
    spec = physics_spec(pup)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1))
    spec.option.timestep = 0.005
    model = spec.compile()
    data, at = mujoco.MjData(model), JointMap(model, pup)
    data.qpos[at.base_pos] = (0, 0, pup.base_height)
    data.qpos[at.qpos] = data.ctrl[at.actuator] = pup.default_joint_pos
    mujoco.mj_step(model, data, 400)
    assert data.qpos[at.base_pos][2] == pytest.approx(pup.base_height, abs=0.04)
    assert abs(data.qpos[at.base_quat][0]) > 0.995
    forces = data.sensordata[at.foot_contact]
    assert forces.sum() == pytest.approx(14.2 * 9.81, rel=0.05)
    assert (forces > 0.1 * forces.sum()).all()
    assert np.isfinite(data.qvel).all() and abs(data.qvel).max() < 0.05


@pytest.mark.usefixtures("as_before")
def test_its_task_trains_and_is_judged(tmp_path: Path, koboshi: Callable[..., Any]) -> None:
    """The whole pipeline of a task without faults, robot and task from files that are named."""
    module = ("--module", FOLDER / "robot.py", "--module", FOLDER / "task.py")
    small = ["env.num_envs=8", "agent.trainer.timesteps=16", "agent.trainer.rollout=8", "gate.episodes=2"]
    small += [
        "gate.seconds=0.5",
        "gate.survival=0",
        "gate.vx_rmse=null",
        "gate.duty_difference=null",
        "evaluate.episodes_a_joint=1",
        "evaluate.seconds=0.5",
    ]
    result = koboshi("pipeline", "pup-trot", *module, "--root", tmp_path, "--name", "a", *small)
    assert result.code == 0, result.err
    metrics = runs.read_json(tmp_path / "pup-trot/a/metrics.json")
    assert list(metrics["controllers"]) == ["healthy"]
    assert "pup-trot" in koboshi("list", *module, "--root", tmp_path).out
