"""A robot of two legs that costs nothing to draw, and a made-up walk of it."""

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest

from koboshi.view import AlarmMark, FaultMark, Trajectory

JOINTS = ["left_knee", "right_knee"]
XML = """
<mujoco><worldbody>
  <body name="base" pos="0 0 0.9"><freejoint/><geom type="box" size=".12 .2 .3" rgba=".3 .3 .35 1"/>
    <body name="left" pos="0 .12 -.3"><joint name="left_knee" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 0 0 -.5" size=".06"/></body>
    <body name="right" pos="0 -.12 -.3"><joint name="right_knee" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 0 0 -.5" size=".06"/></body>
  </body>
</worldbody></mujoco>"""


@pytest.fixture(scope="session")
def toy_spec() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_string(XML)


@pytest.fixture(scope="session")
def walk() -> Callable[..., Trajectory]:
    """Makes a trajectory of `steps` rows; keyword arguments replace its fields."""
    return _walk


def _walk(steps: int = 51, **changes: Any) -> Trajectory:
    """50 Hz; the left knee dies at 0.4 s and is noticed at 0.5 s."""
    time = np.arange(steps) * 0.02
    qpos = np.zeros((steps, 9))
    qpos[:, 0], qpos[:, 2], qpos[:, 3] = 0.8 * time, 0.9, 1
    qpos[:, 7], qpos[:, 8] = 0.4 * np.sin(9 * time), -0.4 * np.sin(9 * time)
    motion = np.tile([0.8, 0.0, 0.0], (steps, 1))
    probability = np.stack([time >= 0.5, 0.1 + 0 * time], axis=1).astype(float)
    fields: dict[str, Any] = {
        "qpos": qpos, "control_dt": 0.02, "joint_names": JOINTS, "title": "switch", "command": motion,
        "velocity": motion, "fault": [FaultMark("left_knee", "torque_loss", 1.0, 0.4)],
        "alarms": [AlarmMark("left_knee", 0.5)], "probability": probability,
        "actor": ["healthy" if t < 0.5 else "left_knee specialist" for t in time],
    }  # fmt: skip
    return Trajectory(**(fields | changes))
