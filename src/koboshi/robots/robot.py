"""What a robot is to koboshi: an MJCF model, cut to what locomotion needs, and the numbers around it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeVar

import mujoco
import numpy as np

from koboshi.errors import KoboshiError, unknown
from koboshi.robots import mirror, model
from koboshi.robots.actuators import Actuator, ActuatorLaw

Value = TypeVar("Value")
Collisions = Literal["feet", "legs", "body", "all"]
"""What touches the ground: `feet`, all of the `legs`, the whole `body`, whose contacts are sensed part by part, or
`all`, which also collides with itself."""


@dataclass(frozen=True)
class Foot:
    """A part that is meant to touch the ground: its body, and which of the body's geoms (None: all that collide)."""

    name: str
    body: str
    geoms: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Robot:
    """A robot is one file that fills this in; patterns are regular expressions that must match a whole joint name,
    and the first that matches wins. Per-joint vectors are in `joint_names` order, the model's own.
    """

    name: str
    load_spec: Callable[[], mujoco.MjSpec]
    actuators: Mapping[str, Actuator]
    """Joint name pattern -> what drives it; joints that no pattern matches move freely."""
    default_pose: Mapping[str, float]
    """Joint name pattern -> rad; joints that no pattern matches rest at 0."""
    base_body: str
    base_height: float
    """Height of the base above flat ground in the default pose, m."""
    feet: tuple[Foot, ...]
    group_patterns: Mapping[str, tuple[str, ...]]
    """Group name (`left_leg`, `torso`, …) -> joint name patterns; every joint is in one."""
    imu_site: str | None = None
    sensors: tuple[str, ...] = ()
    """Names of the MJCF's own sensors that are stepped, for `observations.sensor`; each costs time, so others go."""
    spared: tuple[str, ...] = ()
    """Joints (patterns) that faults leave alone unless asked for."""
    fall_height: float = 0.0
    """A base lower than this above the ground has fallen, m."""
    collisions: Collisions = "feet"
    """What of it collides where a scene does not say otherwise (`env.scene.contacts`)."""
    mirrored: bool = True
    """Whether left and right are mirror images; if not, nothing of it can be mirrored."""
    partners: Mapping[str, str] = field(default_factory=dict)
    """Joint or foot -> the one on the other side, where their names do not tell."""

    def joint_id(self, name: str) -> int:
        """The index of a joint in `joint_names`."""
        if name not in self.joint_names:
            raise unknown("joint", name, self.joint_names)
        return self.joint_names.index(name)

    def foot_id(self, name: str) -> int:
        """The index of a foot in `feet`."""
        names = [foot.name for foot in self.feet]
        if name not in names:
            raise unknown("foot", name, names, "feet")
        return names.index(name)

    def joint_ids(self, *patterns: str) -> list[int]:
        """Indices of the joints that match any of the patterns, in the robot's order; KoboshiError if none does."""
        found = [i for i, name in enumerate(self.joint_names) if any(re.fullmatch(p, name) for p in patterns)]
        if not found:
            raise unknown("joint", "' or '".join(patterns), self.joint_names)
        return found

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        """The actuated joints, in the model's order."""
        one_axis = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
        found = [(j.name, b.name) for b in self.load_spec().bodies for j in b.joints if j.type in one_axis]
        nameless = [repr(body) for name, body in found if not name]
        if nameless:
            raise KoboshiError(f"{self.name} has joints without a name, on the bodies {', '.join(nameless)}")
        names = [name for name, _ in found]
        self._check_patterns("actuators", self.actuators, names)
        return tuple(name for name in names if _match(self.actuators, name) is not None)

    def _check_patterns(self, what: str, patterns: Iterable[str], names: Sequence[str]) -> None:
        """KoboshiError for a pattern that matches no joint: a slip of the pen would go unnoticed."""
        for pattern in patterns:
            if not any(re.fullmatch(pattern, name) for name in names):
                raise KoboshiError(
                    f"'{pattern}' in {what} of {self.name} matches no joint; joints: {', '.join(names) or '(none)'}"
                )

    @cached_property
    def joint_actuators(self) -> dict[str, Actuator]:
        """Joint name -> its actuator."""
        found = {name: _match(self.actuators, name) for name in self.joint_names}
        return {name: actuator for name, actuator in found.items() if actuator is not None}

    @cached_property
    def law(self) -> ActuatorLaw:
        """The torque that each joint's actuator asks for."""
        rows = [(*a.coefficients, a.effort_limit) for a in self.joint_actuators.values()]
        return ActuatorLaw(*np.array(rows, dtype=np.float64).T)

    @property
    def effort_limit(self) -> np.ndarray:
        """(J,) largest torques, N·m."""
        return self.law.effort_limit

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group name -> joint names; KoboshiError where a joint is in no group or in two."""
        names = self.joint_names
        found = {g: tuple(names[i] for i in self.joint_ids(*patterns)) for g, patterns in self.group_patterns.items()}
        for name in names:
            holders = [group for group, members in found.items() if name in members]
            if len(holders) != 1:
                raise KoboshiError(f"joint '{name}' of {self.name} is in {len(holders)} groups, not in one: {holders}")
        return found

    @cached_property
    def default_joint_pos(self) -> np.ndarray:
        """(J,) the pose that an action of zero asks for, rad."""
        self._check_patterns("default_pose", self.default_pose, self.joint_names)
        return np.array([_match(self.default_pose, name) or 0.0 for name in self.joint_names])

    @cached_property
    def physics(self) -> mujoco.MjModel:
        """The robot alone, compiled as it is stepped: to look things up in, not to step."""
        return model.physics_spec(self).compile()

    @cached_property
    def limited(self) -> np.ndarray:
        """(J,) bool: joints with a range."""
        return np.array([bool(self.physics.jnt_limited[self.physics.joint(n).id]) for n in self.joint_names])

    @cached_property
    def mirror_ids(self) -> np.ndarray:
        """(J,) the joint on the other side: `mirrored[j] = sign[j] * q[mirror_ids[j]]`."""
        self._check_mirrored()
        return mirror.mirror_ids(self.joint_names, "joint", self._partners_among(self.joint_names))

    @cached_property
    def mirror_signs(self) -> np.ndarray:
        """(J,) see `mirror_ids`; KoboshiError where left and right are no mirror images."""
        return mirror.mirror_signs(self.physics, self.joint_names, self.mirror_ids, self.law, self.base_body)

    @cached_property
    def fault_signs(self) -> np.ndarray:
        """(J,) the direction of faults that have one: −1 where the joint is the second of a mirrored pair and turns the
        other way, so that the left's fault in the mirror is the right's. A joint in the middle has no such image."""
        if not self.mirrored:
            return np.ones(len(self.joint_names))
        second = np.arange(len(self.joint_names)) > self.mirror_ids
        return np.where(second, self.mirror_signs, 1.0)

    @cached_property
    def mirror_feet(self) -> np.ndarray:
        """(F,) the foot on the other side."""
        self._check_mirrored()
        names = [foot.name for foot in self.feet]
        return mirror.mirror_ids(names, "foot", self._partners_among(names))

    def check_mirror(self) -> None:
        """KoboshiError where joints or feet of a robot that says it is mirrored do not match."""
        if not self.mirrored:
            return
        try:
            _ = self.mirror_signs, self.mirror_feet
        except KoboshiError as error:
            raise KoboshiError(f"{error}; a robot whose sides differ says mirrored=False") from error

    def _partners_among(self, names: Sequence[str]) -> dict[str, str]:
        return {a: b for a, b in self.partners.items() if a in names}

    def _check_mirrored(self) -> None:
        if not self.mirrored:
            raise KoboshiError(f"robot '{self.name}' says that its left and right are no mirror images")

    @cached_property
    def fault_candidates(self) -> tuple[str, ...]:
        """Joints that may fail by default: all but the spared ones."""
        self._check_patterns("spared", self.spared, self.joint_names)
        return tuple(n for n in self.joint_names if not any(re.fullmatch(p, n) for p in self.spared))


def _match(table: Mapping[str, Value], name: str) -> Value | None:
    return next((value for pattern, value in table.items() if re.fullmatch(pattern, name)), None)
