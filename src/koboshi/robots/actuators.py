"""Actuators: what drives a joint, its limits, and the torque that its law asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import mujoco
import numpy as np

Target = Literal["position", "velocity", "torque"]


class ActuatorLaw(NamedTuple):
    """torque = clip(control · u + position · q + velocity · q̇, ±effort_limit), u the target; each (J,).

    MuJoCo's actuators with affine bias are this very law, so physics and every expectation of it share one source.
    """

    control: np.ndarray
    position: np.ndarray
    velocity: np.ndarray
    effort_limit: np.ndarray
    """N·m."""

    def torque(self, target: np.ndarray, pos: np.ndarray, vel: np.ndarray) -> np.ndarray:
        """(…, J) N·m for targets, positions (rad) and velocities (rad/s) of that shape."""
        asked = self.control * target + self.position * pos + self.velocity * vel
        return np.clip(asked, -self.effort_limit, self.effort_limit)


@dataclass(frozen=True)
class _Actuator:
    """What all actuators have."""

    effort_limit: float
    """Largest torque, N·m; a joint's own limit in the model (`actuatorfrcrange`) is put aside."""
    armature: float | None = None
    """Inertia of the rotor as the joint feels it, kg·m² (None: the model's own)."""
    joint_damping: float | None = None
    """Viscous friction of the joint itself, whatever the actuator does, N·m·s/rad (None: the model's own)."""
    target: ClassVar[Target]

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """(control, position, velocity) of `ActuatorLaw`."""
        raise NotImplementedError

    def add_to(self, spec: mujoco.MjSpec, joint: str) -> None:
        """Drives `joint` in MuJoCo by this law."""
        control, position, velocity = self.coefficients
        actuator = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.gaintype, actuator.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
        actuator.gainprm[0] = control
        actuator.biasprm[:3] = (0.0, position, velocity)
        actuator.forcelimited = True
        actuator.forcerange = (-self.effort_limit, self.effort_limit)
        driven = spec.joint(joint)
        driven.actfrclimited = mujoco.mjtLimited.mjLIMITED_FALSE
        if self.armature is not None:
            driven.armature = self.armature
        if self.joint_damping is not None:
            driven.damping[0] = self.joint_damping


@dataclass(frozen=True)
class PositionActuator(_Actuator):
    """PD servo: stiffness (target − q) − damping q̇; N·m/rad and N·m·s/rad."""

    target = "position"
    stiffness: float = 0.0
    damping: float = 0.0

    @property
    def coefficients(self) -> tuple[float, float, float]:
        return self.stiffness, -self.stiffness, -self.damping


@dataclass(frozen=True)
class VelocityActuator(_Actuator):
    """Velocity servo, as a wheel has: damping (target − q̇); N·m·s/rad."""

    target = "velocity"
    damping: float = 0.0

    @property
    def coefficients(self) -> tuple[float, float, float]:
        return self.damping, 0.0, -self.damping


@dataclass(frozen=True)
class TorqueActuator(_Actuator):
    """The target is the torque, N·m."""

    target = "torque"

    @property
    def coefficients(self) -> tuple[float, float, float]:
        return 1.0, 0.0, 0.0


Actuator = PositionActuator | VelocityActuator | TorqueActuator
