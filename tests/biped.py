"""A small biped in plain MJCF, whole, and with any line of it changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mujoco

from koboshi.robots import Foot, PositionActuator, Robot

_LEG = """
      <body name="{side}_thigh" pos="0 {y} 0">
        <joint name="{side}_hip" axis="1 0 0" range="{range}" armature=".01"/>
        <geom name="{side}_thigh_rod" type="capsule" fromto="0 0 0 0 0 -.2" size=".02" mass="1"/>
        <body name="{side}_shank" pos="0 0 -.2">
          <joint name="{side}_knee" axis="0 1 0" range="-1 1" armature=".01"/>
          <geom name="{side}_shank_rod" type="capsule" fromto="0 0 0 0 0 -.15" size=".02" mass=".5"/>
          <geom name="{side}_sole" type="sphere" size=".03" pos="0 0 -.2" mass=".1"/>
        </body>
      </body>
"""
BIPED = f"""
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body name="base">
      <freejoint name="root"/>
      <geom name="trunk" type="box" size=".2 .1 .05" mass="5"/>
      <geom name="shell" type="box" size=".3 .2 .1" mass="0" contype="0" conaffinity="0"/>
      <site name="imu"/>
{_LEG.format(side="left", y=".1", range="-1 .5")}
{_LEG.format(side="right", y="-.1", range="-.5 1")}
    </body>
  </worldbody>
</mujoco>
"""


def biped(*edits: tuple[str, str], **changes: Any) -> Robot:
    """biped((old, new)…, field=value…): texts of its MJCF replaced (each occurs once), then fields of the robot."""
    xml = BIPED
    for old, new in edits:
        assert xml.count(old) == 1, f"'{old}' is in the model {xml.count(old)} times"
        xml = xml.replace(old, new)
    robot = Robot(
        name="biped",
        load_spec=lambda: mujoco.MjSpec.from_string(xml),
        actuators={".*": PositionActuator(stiffness=50.0, damping=2.0, effort_limit=30.0)},
        default_pose={".*_knee": 0.1},
        base_body="base",
        base_height=0.43,
        feet=(Foot("left_foot", "left_shank", ("left_sole",)), Foot("right_foot", "right_shank", ("right_sole",))),
        group_patterns={"left_leg": ("left_.*",), "right_leg": ("right_.*",)},
        imu_site="imu",
    )
    return replace(robot, **changes)
