"""Event terms: `term(env, mask, **params)`; mask (N,) bool are the environments it happens to.

Randomisations of the physics' model say by `@randomises` which fields they change, so that these are prepared before
the first step, and whether other constants follow from them. All go through `env.fields`, under the faults in force.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from koboshi.envs.env import Env

Event = Callable[..., None]
Range = tuple[float, float]


def randomises(*fields: str, derives: bool = False) -> Callable[[Event], Event]:
    """Notes on an event the model fields it changes, or none; `derives`: other constants follow from them."""

    def note(event: Event) -> Event:
        event.randomises = tuple((field, derives) for field in fields)  # type: ignore[attr-defined]
        return event

    return note


def of_an_episode(event: Event) -> Event:
    """Notes on an event that a reset undoes what it does, so that it can't be one of the startup."""
    event.of_an_episode = True  # type: ignore[attr-defined]
    return event


def reset_base(env: Env, mask: Tensor, velocity: float = 0.5, heading: Range = (-math.pi, math.pi)) -> None:
    """Upright at a random heading (rad), with a random velocity up to `velocity` m/s and rad/s in each direction."""
    half = env.uniform(env.num_envs, heading[0] / 2, heading[1] / 2)
    zero = torch.zeros_like(half)
    env.place(mask, "base_quat", torch.stack((half.cos(), zero, zero, half.sin()), dim=1))
    speed = env.uniform((env.num_envs, 6), -velocity, velocity)
    env.place(mask, "base_lin_vel", speed[:, :3])
    env.place(mask, "base_ang_vel", speed[:, 3:])


def reset_joints(env: Env, mask: Tensor, scale: Range = (0.8, 1.2)) -> None:
    """The default pose, each joint scaled by a random factor; joints at rest."""
    shape = (env.num_envs, len(env.robot.joint_names))
    env.place(mask, "qpos", env.default_joint_pos * env.uniform(shape, *scale))
    env.place(mask, "dof", torch.zeros(shape, device=env.device))


def push(env: Env, mask: Tensor, velocity: float = 0.5) -> None:
    """A shove: the base's horizontal velocity changes by up to `velocity` m/s in each direction."""
    columns = env.joints.base_lin_vel
    change = torch.zeros(env.num_envs, 3, device=env.device)
    change[:, :2] = env.uniform((env.num_envs, 2), -velocity, velocity)
    env.place(mask, "base_lin_vel", env.qvel[:, columns] + change)


@of_an_episode
@randomises()
def external_force(env: Env, mask: Tensor, force: Range = (-30.0, 30.0)) -> None:
    """A force on the base's centre of mass, N in each direction of the world, until it is drawn anew or the episode
    ends."""
    drawn = env.uniform((env.num_envs, 3), *force)
    env.external_force.copy_(torch.where(mask[:, None], drawn, env.external_force))


@randomises("geom_friction")
def randomise_friction(env: Env, mask: Tensor, range: Range = (0.5, 1.25)) -> None:
    """Sliding friction of every geom of an environment; it is the larger of a contact's two that counts."""
    friction = env.fields.randomised("geom_friction").clone()
    friction[:, :, 0] = env.uniform((env.num_envs, 1), *range)
    env.fields.randomise("geom_friction", mask, friction)


@randomises("body_mass", "body_inertia", derives=True)
def randomise_mass(
    env: Env,
    mask: Tensor,
    add: Range = (-1.0, 3.0),
    of_robot: Range = (0.0, 0.0),
    bodies: tuple[str, ...] | None = None,
) -> None:
    """kg more or less on some bodies (None: the base), and shares of the robot's mass; their inertia scaled alike."""
    ids = env.body_ids(tuple(bodies or (env.robot.base_body,)))
    nominal, shape = env.fields.nominal("body_mass")[ids], (env.num_envs, len(ids))
    load = env.uniform(shape, *add) + env.uniform(shape, *of_robot) * env.robot_mass
    mass = (nominal + load).clamp(min=0.1 * nominal)
    for field, value in (("body_mass", mass), ("body_inertia", env.fields.nominal("body_inertia")[ids])):
        whole = env.fields.randomised(field).clone()
        whole[:, ids] = value if field == "body_mass" else value * (mass / nominal)[..., None]
        env.fields.randomise(field, mask, whole)


@randomises("body_ipos", derives=True)
def randomise_com(env: Env, mask: Tensor, shift: Range = (-0.05, 0.05)) -> None:
    """The base's centre of mass moves by so many metres along each axis."""
    body = env.model.body(env.robot.base_body).id
    place = env.fields.randomised("body_ipos").clone()
    place[:, body] = env.fields.nominal("body_ipos")[body] + env.uniform((env.num_envs, 3), *shift)
    env.fields.randomise("body_ipos", mask, place)


@randomises("actuator_gainprm", "actuator_biasprm")
def randomise_gains(
    env: Env,
    mask: Tensor,
    stiffness: Range = (0.9, 1.1),
    damping: Range = (0.9, 1.1),
    shared: Range = (1.0, 1.0),
) -> None:
    """Factors on each actuator's stiffness and damping (a velocity servo's gain is its damping, a motor has none).

    `shared`: one more, that all of a robot's have in common.
    """
    shape, common = (env.num_envs, env.model.nu), env.uniform((env.num_envs, 1), *shared)
    kp, kd = common * env.uniform(shape, *stiffness), common * env.uniform(shape, *damping)
    nominal = (env.fields.nominal(f"actuator_{name}prm") for name in ("gain", "bias"))
    gain, bias = (value.expand(env.num_envs, -1, -1).clone() for value in nominal)
    holds_position = bias[:, :, 1] != 0
    gain[:, :, 0] *= torch.where(holds_position, kp, torch.where(bias[:, :, 2] != 0, kd, 1.0))
    bias[:, :, 1] *= kp
    bias[:, :, 2] *= kd
    env.fields.randomise("actuator_gainprm", mask, gain)
    env.fields.randomise("actuator_biasprm", mask, bias)


@randomises("actuator_forcerange")
def randomise_strength(env: Env, mask: Tensor, range: Range = (0.8, 1.0), shared: Range = (1.0, 1.0)) -> None:
    """A factor on the largest torque of each actuator, and one (`shared`, a battery's) that all have in common."""
    factor = env.uniform((env.num_envs, env.model.nu, 1), *range) * env.uniform((env.num_envs, 1, 1), *shared)
    env.fields.randomise("actuator_forcerange", mask, env.fields.nominal("actuator_forcerange") * factor)


@randomises("dof_armature", derives=True)
def randomise_armature(env: Env, mask: Tensor, range: Range = (0.8, 1.2)) -> None:
    """A factor on each joint's rotor inertia."""
    env.fields.randomise("dof_armature", mask, _scaled_joints(env, "dof_armature", range))


@randomises("dof_frictionloss")
def randomise_joint_friction(env: Env, mask: Tensor, add: Range = (0.0, 0.5), of_effort: Range = (0.0, 0.0)) -> None:
    """Dry friction added to each joint: N·m, and a share of the joint's effort limit."""
    columns, shape = env.joints.dof, (env.num_envs, len(env.robot.joint_names))
    friction = env.fields.nominal("dof_frictionloss").expand(env.num_envs, -1).clone()
    friction[:, columns] += env.uniform(shape, *add) + env.uniform(shape, *of_effort) * env.effort_limit
    env.fields.randomise("dof_frictionloss", mask, friction)


def _scaled_joints(env: Env, field: str, range: Range) -> Tensor:
    """(N, nv) the nominal values of a dof field, each joint's with a factor of its own."""
    value = env.fields.nominal(field).expand(env.num_envs, -1).clone()
    value[:, env.joints.dof] *= env.uniform((env.num_envs, len(env.robot.joint_names)), *range)
    return value


@randomises()
def randomise_encoder_bias(env: Env, mask: Tensor, range: Range = (-0.02, 0.02)) -> None:
    """What each encoder shows too much, rad: for the policy and the detector, not for the drive's own loop."""
    bias = env.uniform(env.encoder_bias.shape, *range)
    env.encoder_bias.copy_(torch.where(mask[:, None], bias, env.encoder_bias))
