"""The kinds of fault: what each changes, and on which joints it can act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from koboshi.errors import KoboshiError, unknown
from koboshi.robots import Robot

Kind = Literal["torque_loss", "locked", "limited_range", "braking", "sensor_freeze", "sensor_bias"]
KINDS: tuple[str, ...] = get_args(Kind)

LOCK_SLACK = 0.01
"""A locked joint keeps this much play to either side, rad."""
BRAKE_DAMPING = 40.0
"""Damping that braking of severity 1 adds, N·m·s/rad (a knee's PD damping is 5)."""
SENSOR_BIAS = 0.3
"""Offset that a biased encoder of severity 1 shows, rad."""

Columns = Literal["joint", "dof", "actuator"]


class FieldEffect(NamedTuple):
    """How a kind acts on a model field.

    `apply(value, severity, held)`: value (N, J, …) the joints' part of the field, severity (N, J) 0 where the joint
    is well, held (N, J) its position when the fault began -> the faulty value, and the very value where severity is 0.
    """

    field: str
    columns: Columns
    """Which columns of the field belong to the joints; see `JointMap`."""
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    needs_range: bool = False
    """Whether it acts through a joint's range, so that a joint without one cannot have it."""


def _torque_loss(value: Tensor, severity: Tensor, held: Tensor) -> Tensor:
    """The actuator's force range shrinks; at severity 1 it gives no torque."""
    return value * (1 - severity)[..., None]


def _locked(value: Tensor, severity: Tensor, held: Tensor) -> Tensor:
    """Held where it was."""
    range_ = torch.stack((held - LOCK_SLACK, held + LOCK_SLACK), dim=-1)
    return torch.where(severity[..., None] > 0, range_, value)


def _limited_range(value: Tensor, severity: Tensor, held: Tensor) -> Tensor:
    """The range shrinks by the severity around where the joint was."""
    place = held[..., None]
    return torch.where(severity[..., None] > 0, place + (value - place) * (1 - severity)[..., None], value)


def _braking(value: Tensor, severity: Tensor, held: Tensor) -> Tensor:
    """Damping is added."""
    return value + BRAKE_DAMPING * severity


EFFECTS: dict[str, FieldEffect] = {
    "torque_loss": FieldEffect("actuator_forcerange", "actuator", _torque_loss),
    "locked": FieldEffect("jnt_range", "joint", _locked, needs_range=True),
    "limited_range": FieldEffect("jnt_range", "joint", _limited_range, needs_range=True),
    "braking": FieldEffect("dof_damping", "dof", _braking),
}
"""Kinds that act on physics; the others act on what the encoders show."""


def check_kind(kind: str) -> None:
    """KoboshiError where there is no such kind."""
    if kind not in KINDS:
        raise unknown("fault kind", kind, KINDS)


def check_fault(robot: Robot, joint: str, kind: str) -> None:
    """KoboshiError where there is no such joint or kind, or where the kind cannot act on the joint."""
    check_kind(kind)
    j = robot.joint_id(joint)
    if kind in EFFECTS and EFFECTS[kind].needs_range and not robot.limited[j]:
        raise KoboshiError(f"a fault '{kind}' cannot act on joint '{joint}' of {robot.name}, which has no range")
    if kind == "sensor_bias" and _is_wheel(robot, j):
        # Tasks leave the angle out, for it grows without bound, and the drive knows speeds alone.
        raise KoboshiError(
            f"a fault '{kind}' cannot act on joint '{joint}' of {robot.name}, a wheel driven by its speed"
        )


def _is_wheel(robot: Robot, joint: int) -> bool:
    drive = robot.law
    return bool(drive.velocity[joint] != 0 and drive.position[joint] == 0 and not robot.limited[joint])
