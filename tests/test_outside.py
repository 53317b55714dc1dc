"""The examples of things from outside: a robot from a bare MJCF, in one short file, sound by `koboshi check`."""

from __future__ import annotations

import runpy
from pathlib import Path

import mujoco
import numpy as np
import pytest

from koboshi.robots import JointMap, Robot, physics_spec
from koboshi.stages.check import check

FOLDER = Path(__file__).parents[1] / "examples" / "outside"


@pytest.fixture(scope="module")
def pup() -> Robot:
    robots = runpy.run_path(str(FOLDER / "robot.py"))["ROBOTS"]
    assert list(robots) == ["pup"]
    return robots["pup"]


def test_the_file_is_short() -> None:
    assert len((FOLDER / "robot.py").read_text().splitlines()) <= 60


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
