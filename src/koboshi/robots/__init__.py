"""Robots: one file each. `known` are those that ship with koboshi and those added from outside."""

from __future__ import annotations

from koboshi.errors import KoboshiError, unknown
from koboshi.robots.actuators import ActuatorLaw, PositionActuator, TorqueActuator, VelocityActuator
from koboshi.robots.maps import JointMap
from koboshi.robots.model import physics_spec, visual_spec
from koboshi.robots.robot import Foot, Robot
from koboshi.robots.unitree_g1 import UNITREE_G1
from koboshi.robots.unitree_go2 import UNITREE_GO2
from koboshi.robots.unitree_go2w import UNITREE_GO2W
from koboshi.robots.unitree_h1 import UNITREE_H1
from koboshi.robots.wheelbiped import WHEELBIPED

_ROBOTS: dict[str, Robot] = {
    robot.name: robot for robot in (UNITREE_H1, UNITREE_G1, UNITREE_GO2, UNITREE_GO2W, WHEELBIPED)
}

__all__ = [
    "UNITREE_G1",
    "UNITREE_GO2",
    "UNITREE_GO2W",
    "UNITREE_H1",
    "WHEELBIPED",
    "ActuatorLaw",
    "Foot",
    "JointMap",
    "PositionActuator",
    "Robot",
    "TorqueActuator",
    "VelocityActuator",
    "add",
    "find",
    "known",
    "physics_spec",
    "visual_spec",
]


def known() -> dict[str, Robot]:
    """Name -> robot."""
    return dict(_ROBOTS)


def find(name: str) -> Robot:
    """The robot of that name; KoboshiError naming the valid ones."""
    if name not in _ROBOTS:
        raise unknown("robot", name, _ROBOTS)
    return _ROBOTS[name]


def add(robot: Robot) -> None:
    """Makes a robot from outside known; KoboshiError where another one has its name."""
    if _ROBOTS.get(robot.name, robot) is not robot:
        raise KoboshiError(f"there is a robot '{robot.name}' already")
    _ROBOTS[robot.name] = robot
