"""Robots: one file each. `ROBOTS` is the table of those that ship with koboshi."""

from koboshi.robots.model import physics_spec, visual_spec
from koboshi.robots.robot import JointGains, Robot
from koboshi.robots.unitree_g1 import UNITREE_G1
from koboshi.robots.unitree_h1 import UNITREE_H1

ROBOTS: dict[str, Robot] = {robot.name: robot for robot in (UNITREE_H1, UNITREE_G1)}

__all__ = ["ROBOTS", "UNITREE_G1", "UNITREE_H1", "JointGains", "Robot", "physics_spec", "visual_spec"]
