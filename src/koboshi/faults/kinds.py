"""The kinds of fault: what each changes, what its severity means, and on which joints it can act.

Those that ship stand first, so that their indices in `KINDS` never change; `add` puts one from outside after them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import mujoco
import torch
from torch import Tensor

from koboshi.errors import KoboshiError, unknown
from koboshi.robots import Robot

Kind = str
"""One of KINDS."""

LOCK_SLACK = 0.01
"""A joint locked with severity 1 keeps this much play to either side, rad."""
LOCK_PLAY = 0.3
"""Further play of one locked with severity 0, rad."""
BRAKE_DAMPING = 40.0
"""Damping that braking of severity 1 adds, N·m·s/rad (a knee's PD damping is 5)."""
ENCODER_OFFSET = 0.3
"""Offset that an encoder of severity 1 shows, rad."""

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


class FaultKind(NamedTuple):
    """A kind of fault."""

    severity: str
    """What a severity s in (0, 1] means, for people."""
    effects: tuple[FieldEffect, ...] = ()
    """On physics; what sensors show is `FaultLayer`'s."""
    needs_range: bool = False
    """Whether it acts through a joint's range, so that a joint without one cannot have it."""
    captures: bool = False
    """Whether its effects ask for `held`, the joint's position when it began."""
    signed: bool = False
    """Whether it has a direction: the right joint of a mirrored pair then has the left one's in the mirror, and
    `severity` comes to its effects with that sign."""


def _torque_loss(value: Tensor, severity: Tensor, held: Tensor) -> Tensor:
    return value * (1 - severity)[..., None]


def _locked(value: Tensor, severity: Tensor, held: Tensor) -> Tensor:
    play = LOCK_SLACK + LOCK_PLAY * (1 - severity)
    return torch.where(severity[..., None] > 0, torch.stack((held - play, held + play), dim=-1), value)


def _limited_range(value: Tensor, severity: Tensor, held: Tensor) -> Tensor:
    place = held[..., None]
    return torch.where(severity[..., None] > 0, place + (value - place) * (1 - severity)[..., None], value)


def _braking(value: Tensor, severity: Tensor, held: Tensor) -> Tensor:
    return value + BRAKE_DAMPING * severity


def _drive_offset(value: Tensor, severity: Tensor, held: Tensor) -> Tensor:
    """The drive's law position · q with q + offset for q: biasprm is (constant, position, velocity, …)."""
    value = value.clone()
    value[..., 0] += value[..., 1] * ENCODER_OFFSET * severity
    return value


def _drive_freeze(value: Tensor, severity: Tensor, held: Tensor) -> Tensor:
    """The same with s · held + (1 − s) · q for q, and (1 − s) · q̇ for q̇."""
    value = value.clone()
    value[..., 0] += value[..., 1] * severity * held
    value[..., 1:3] *= (1 - severity)[..., None]
    return value


# gain · control + bias, cut at the limit: with (1 − s) of each the drive gives (1 − s) of its torque.
_WEAKER = tuple(
    FieldEffect(field, "actuator", _torque_loss)
    for field in ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange")
)
FAULT_KINDS: dict[str, FaultKind] = {
    "torque_loss": FaultKind("the actuator gives (1 − s) of its torque, also of its greatest; at 1 none", _WEAKER),
    "locked": FaultKind(
        f"the joint keeps {LOCK_SLACK} + {LOCK_PLAY} (1 − s) rad of play to either side of where it was",
        (FieldEffect("jnt_range", "joint", _locked),),
        needs_range=True,
        captures=True,
    ),
    "limited_range": FaultKind(
        "the range shrinks to (1 − s) of itself around where the joint was",
        (FieldEffect("jnt_range", "joint", _limited_range),),
        needs_range=True,
        captures=True,
    ),
    "braking": FaultKind(
        f"the drive is shorted: (1 − s) of its torque, and {BRAKE_DAMPING:g} s N·m·s/rad of damping",
        (*_WEAKER, FieldEffect("dof_damping", "dof", _braking)),
    ),
    "encoder_offset": FaultKind(
        f"position is shown {ENCODER_OFFSET} s rad too great, to the drive too; on the second of a mirrored pair the "
        "mirror image of that",
        (FieldEffect("actuator_biasprm", "actuator", _drive_offset),),
        signed=True,
    ),
    "encoder_freeze": FaultKind(
        "position is shown as s · where it was + (1 − s) · where it is and velocity as (1 − s) of itself, "
        "to the drive too",
        (FieldEffect("actuator_biasprm", "actuator", _drive_freeze),),
        captures=True,
    ),
    "torque_sensor_loss": FaultKind("measured torque is (1 − s) of the true one"),
}
KINDS: list[str] = list(FAULT_KINDS)
"""In the order in which they act where several meet on a joint: an offset is added to what a frozen encoder shows.
Data name a kind by its index, so `add` alone changes this, at its end."""
CAPTURING: list[str] = [name for name, kind in FAULT_KINDS.items() if kind.captures]
"""Kinds that hold on to the position that the joint had when they began."""


def add(name: str, kind: FaultKind) -> None:
    """Makes a kind from outside known, after all others; KoboshiError where it cannot be one.

    It acts through model fields alone: what sensors show is a matter of the kinds that ship.
    """
    check_new(name, kind)
    KINDS.append(name)
    FAULT_KINDS[name] = kind
    if kind.captures:
        CAPTURING.append(name)


def check_new(name: str, kind: FaultKind) -> None:
    """KoboshiError where there is a kind of that name, or this one changes nothing or no model field."""
    if name in KINDS:
        raise KoboshiError(f"the fault kind '{name}' is taken; kinds: {', '.join(KINDS)}")
    if not name.isidentifier():
        raise KoboshiError(f"a fault kind's name is of letters, digits and _, not '{name}'")  # --fault splits at :
    if not kind.effects:
        raise KoboshiError(f"fault kind '{name}' has no effects, so nothing would happen")
    for effect in kind.effects:
        if effect.columns not in get_args(Columns):
            raise unknown(f"columns of fault kind '{name}'", effect.columns, get_args(Columns))
        if not hasattr(mujoco.MjModel, effect.field):
            raise KoboshiError(f"fault kind '{name}' changes '{effect.field}', and a MuJoCo model has no such field")


def check_kind(kind: str) -> None:
    """KoboshiError where there is no such kind."""
    if kind not in KINDS:
        raise unknown("fault kind", kind, KINDS)


def check_fault(robot: Robot, joint: str, kind: str) -> None:
    """KoboshiError where there is no such joint or kind, or where the kind cannot act on the joint."""
    check_kind(kind)
    j = robot.joint_id(joint)
    if FAULT_KINDS[kind].needs_range and not robot.limited[j]:
        raise KoboshiError(f"a fault '{kind}' cannot act on joint '{joint}' of {robot.name}, which has no range")
    if kind == "encoder_offset" and _is_wheel(robot, j):
        # Tasks leave the angle out, for it grows without bound, and the drive knows speeds alone.
        raise KoboshiError(
            f"a fault '{kind}' cannot act on joint '{joint}' of {robot.name}, a wheel driven by its speed"
        )


def can_have(robot: Robot, joint: str, kind: str) -> bool:
    """Whether a kind of fault can act on a joint."""
    robot.joint_id(joint)  # raises where there is no such joint
    try:
        check_fault(robot, joint, kind)
    except KoboshiError:
        return False
    return True


def _is_wheel(robot: Robot, joint: int) -> bool:
    drive = robot.law
    return bool(drive.velocity[joint] != 0 and drive.position[joint] == 0 and not robot.limited[joint])
