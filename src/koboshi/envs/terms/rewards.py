"""Reward terms: `term(env, **params) -> (N,) or (N, d)`; weights, shapes and clips are in the configuration.

Isaac Lab's flat H1 task (isaaclab_tasks, locomotion/velocity/config/h1), in its names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from koboshi.errors import unknown

if TYPE_CHECKING:
    from koboshi.envs.env import Env

Joints = tuple[str, ...]
"""Patterns of joint names."""
ALL: Joints = (".*",)


def lin_vel_xy_error(env: Env, frame: Literal["yaw", "base", "world"] = "yaw") -> Tensor:
    """(N, 2) commanded less true velocity, m/s: along the robot's heading and across it, in its tilted base, or along
    the world's x and y, whatever it looks at."""
    state = env.state
    match frame:
        case "yaw":
            velocity = state.lin_vel_yaw
        case "base":
            velocity = state.base_lin_vel[:, :2]
        case "world":
            velocity = state.world_lin_vel[:, :2]
        case _:
            raise unknown("frame", frame, ("yaw", "base", "world"))
    return env.command.value[:, :2] - velocity


def ang_vel_z_error(env: Env) -> Tensor:
    """(N, 1) commanded less true yaw rate, rad/s."""
    return env.command.value[:, 2:] - env.state.base_ang_vel[:, 2:]


def feet_air_time_biped(env: Env, threshold: float = 0.4) -> Tensor:
    """(N,) time of the present single stance up to `threshold` s; 0 in double stance, flight or standing."""
    state = env.state
    single = state.foot_contact.sum(1) == 1
    return _phase_time(env).amin(1).clamp(max=threshold) * (single & _moves(env))


def trot(env: Env, pairs: tuple[tuple[str, ...], tuple[str, ...]], longest: float = 0.5) -> Tensor:
    """(N,) (share of the first pair's feet that touch the ground − share of the second's)².

    1 where one pair stands and the other swings, a quarter where one foot of four is up, so that the way to a trot
    is a slope; 0 in stance, flight, pace and bound, where a foot stays in its phase for over `longest` s (or a leg
    lifted for good would earn it), and standing.
    """
    first, second = (env.state.foot_contact[:, env.foot_ids(pair)].float().mean(1) for pair in pairs)
    return (first - second).square() * ((_phase_time(env).amax(1) <= longest) & _moves(env))


def _phase_time(env: Env) -> Tensor:
    """(N, F) time since each foot last touched down or took off, s."""
    return torch.where(env.state.foot_contact, env.state.contact_time, env.state.air_time)


def _moves(env: Env) -> Tensor:
    """(N,) whether motion is asked for."""
    return env.command.value.abs().amax(1) > 0.1


def feet_air_time(env: Env, threshold: float = 0.5) -> Tensor:
    """(N,) Σ (time in the air − `threshold`) over feet that just touched down, s; 0 where no motion is asked for."""
    state = env.state
    landed = state.foot_contact & (state.contact_time <= 1.5 * env.step_dt)
    return ((state.last_air_time - threshold) * landed).sum(1) * _moves(env)


def feet_slide(env: Env) -> Tensor:
    """(N,) horizontal speed of the feet that touch the ground, m/s."""
    return (env.state.foot_vel[:, :, :2].norm(dim=2) * env.state.foot_contact).sum(1)


def stumble(env: Env, slope: float = 5.0) -> Tensor:
    """(N,) how many feet meet something upright: the ground pushes them sideways with over `slope` times the force with
    which it holds them (legged_gym's)."""
    force = env.foot_force
    return (force[..., :2].norm(dim=-1) > slope * force[..., 2].abs()).float().sum(1)


def feet_lift(env: Env) -> Tensor:
    """(N, F) upward speed of each foot, m/s, 0 where it sinks."""
    return env.state.foot_vel[..., 2].clamp(min=0)


def undesired_contacts(env: Env, bodies: tuple[str, ...]) -> Tensor:
    """(N,) how many of these bodies (patterns) touch the ground with other than their soles."""
    return env.touching(bodies).float().sum(1)


def joint_pos_limits(env: Env, joints: tuple[str, ...]) -> Tensor:
    """(N,) how far joints are outside 90 % of their range, rad."""
    ids = env.joint_ids(joints)
    pos, low, high = env.state.joint_pos[:, ids], env.soft_limits[0][ids], env.soft_limits[1][ids]
    return ((low - pos).clamp(min=0) + (pos - high).clamp(min=0)).sum(1)


def joint_deviation(env: Env, joints: tuple[str, ...]) -> Tensor:
    """(N, n) joint positions less the default pose, rad."""
    ids = env.joint_ids(joints)
    return env.state.joint_pos[:, ids] - env.default_joint_pos[ids]


def pose_mirror(env: Env, joints: Joints = ALL) -> Tensor:
    """(N, n) positions of joints less those of the pose's mirror image, left and right exchanged, rad."""
    ids, signs = env.joint_mirror
    offset = env.state.joint_pos - env.default_joint_pos
    return _chosen(env, offset - signs * offset[:, ids], joints)


def flat_orientation(env: Env) -> Tensor:
    """(N, 2) horizontal part of gravity in the base frame."""
    return env.state.projected_gravity[:, :2]


def action_rate(env: Env) -> Tensor:
    """(N, A) change of the action in this step."""
    return env.actions.value - env.actions.previous


def _chosen(env: Env, values: Tensor, joints: Joints) -> Tensor:
    """(N, n) of (N, J) those of some joints."""
    return values if joints == ALL else values[:, env.joint_ids(joints)]


def joint_acc(env: Env, joints: Joints = ALL) -> Tensor:
    """(N, n) rad/s²."""
    return _chosen(env, env.state.joint_acc, joints)


def joint_power(env: Env, joints: Joints = ALL) -> Tensor:
    """(N,) Σ |torque · velocity| of joints, W."""
    return _chosen(env, env.state.joint_torque * env.state.joint_vel, joints).abs().sum(1)


def action_smoothness(env: Env) -> Tensor:
    """(N, A) second difference of the actions: a_t − 2 a_{t−1} + a_{t−2}."""
    return env.actions.value - 2 * env.actions.previous + env.actions.before_previous


def feet_clearance(env: Env, target: float, speed: float = 1.0) -> Tensor:
    """(N,) Σ (height of a foot above the ground under it − `target`)² · min(its horizontal speed / `speed`, 1), m²: a
    foot that swings is held to `target` m. (Ji et al. 2022, with the ground under the foot.)"""
    swing = (env.state.foot_vel[..., :2].norm(dim=-1) / speed).clamp(max=1)
    return ((env.state.foot_height - target).square() * swing).sum(1)


def feet_clearance_body(env: Env, target: float) -> Tensor:
    """(N,) Σ (height of a foot in the base's frame − `target`)² · its horizontal speed there, m³/s; `target` is below 0
    (HIM's foot clearance)."""
    state = env.state
    height = state.in_base_frame(state.foot_pos - state.base_pos[:, None])[..., 2]
    velocity = state.in_base_frame(state.foot_vel - state.world_lin_vel[:, None])
    return ((height - target).square() * velocity[..., :2].norm(dim=-1)).sum(1)


def feet_below_step(env: Env, reach: float, stands: float, least: float = 0.02) -> Tensor:
    """(N,) Σ how far each foot's point is below where it would stand, `stands` m high, on top of the risers within
    `reach` m in front of it, as the robot looks, m: what a foot has yet to rise. Ground is looked at every fifth of
    `reach`, and what rises by less than `least` m from there to there is a slope and no riser."""
    pos, heading = env.state.foot_pos, env.state.heading[:, None].expand(env.state.foot_pos.shape[:2])
    middle = pos[..., :2] + reach / 2 * torch.stack((heading.cos(), heading.sin()), -1)
    ground = env.scene.scan(middle, heading, (reach, 0.0), reach / 5)
    rises = ground.diff(dim=-1)
    top = ground[..., 0] + rises.masked_fill(rises < least, 0.0).sum(-1)
    return (top + stands - pos[..., 2]).clamp(min=0).sum(1)


def joint_torque(env: Env, joints: Joints = ALL) -> Tensor:
    """(N, n) N·m."""
    return _chosen(env, env.state.joint_torque, joints)


def lin_vel_z(env: Env) -> Tensor:
    """(N,) vertical velocity in the base frame, m/s."""
    return env.state.base_lin_vel[:, 2]


def ang_vel_xy(env: Env) -> Tensor:
    """(N, 2) roll and pitch rate in the base frame, rad/s."""
    return env.state.base_ang_vel[:, :2]


def base_height_error(
    env: Env, target: float, size: tuple[float, float] = (0.0, 0.0), resolution: float = 0.1
) -> Tensor:
    """(N,) height above the ground less `target`, m; above its mean under a grid of points, as `height_scan`'s."""
    state = env.state
    if size == (0.0, 0.0):
        return state.base_height - target
    ground = state.ground_scan(size, resolution).mean(1)
    return state.base_pos[:, 2] - ground - target


def termination(env: Env) -> Tensor:
    """(N,) 1 where the task has just ended in a failure."""
    return env.terminated.float()


def alive(env: Env) -> Tensor:
    """(N,) 1 everywhere else."""
    return (~env.terminated).float()
