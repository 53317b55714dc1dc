"""Environments to test with: a biped, a quadruped, and a cart on wheels of a few lines of MJCF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mujoco
import torch
from torch import Tensor

from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import (
    ActionsCfg,
    ActionTerm,
    EventTerm,
    HeadingCfg,
    ObsGroup,
    ObsTerm,
    RewardTerm,
    TerminationTerm,
)
from koboshi.envs.terms import actions, events, observations, rewards, terminations
from koboshi.faults import Fault, Scenario, Scenarios
from koboshi.robots import UNITREE_GO2, UNITREE_H1, Foot, PositionActuator, Robot, TorqueActuator, VelocityActuator
from koboshi.vec_env import Step

HEADING = HeadingCfg()

_ROVER = """
<mujoco model="rover">
  <compiler angle="radian"/>
  <worldbody>
    {before}
    <body name="chassis" pos="0 0 0.2">
      <freejoint/>
      <inertial pos="0 0 0" mass="4" diaginertia=".03 .05 .08"/>
      <site name="imu"/>
      <body name="left_wheel" pos="0.1 .2 -.1">
        <joint name="left_wheel" axis="0 1 0" damping=".01" armature=".01"/>
        <inertial pos="0 0 0" mass=".5" diaginertia=".002 .002 .002"/>
        <geom type="sphere" size=".1"/>
      </body>
      <body name="right_wheel" pos="0.1 -.2 -.1">
        <joint name="right_wheel" axis="0 1 0" damping=".01" armature=".01"/>
        <inertial pos="0 0 0" mass=".5" diaginertia=".002 .002 .002"/>
        <geom type="sphere" size=".1"/>
      </body>
      <body name="skid" pos="-.15 0 -.15">
        <inertial pos="0 0 0" mass=".1" diaginertia=".0001 .0001 .0001"/>
        <geom type="sphere" size=".05"/>
      </body>
      <body name="mast" pos="0 0 .05">
        <joint name="mast" axis="0 1 0" range="-1.5 1.5" damping=".1" armature=".01"/>
        <inertial pos="0 0 .1" mass=".3" diaginertia=".001 .001 .0001"/>
        <body name="vane" pos="0 0 .2">
          <joint name="vane" axis="0 0 1" damping=".05" armature=".01"/>
          <inertial pos="0 0 0" mass=".1" diaginertia=".0001 .0003 .0003"/>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""
_BALL = """<body name="ball" pos="2 0 5">
      <freejoint/>
      <inertial pos="0 0 0" mass=".5" diaginertia=".01 .01 .01"/>
    </body>"""


def _rover(name: str, before: str = "", **changes: Any) -> Robot:
    """Two wheels (velocity), a mast with a range (position) and a vane without one (torque), in this order."""
    return Robot(
        name=name,
        load_spec=lambda: mujoco.MjSpec.from_string(_ROVER.format(before=before)),
        actuators={
            ".*_wheel": VelocityActuator(effort_limit=5.0, damping=2.0),
            "mast": PositionActuator(effort_limit=10.0, stiffness=30.0, damping=1.0),
            "vane": TorqueActuator(effort_limit=1.0),
        },
        default_pose={"mast": 0.1},
        base_body="chassis",
        base_height=0.2,
        feet=(Foot("left_wheel", "left_wheel"), Foot("right_wheel", "right_wheel"), Foot("skid", "skid")),
        group_patterns={"wheels": (".*_wheel",), "top": ("mast", "vane")},
        imu_site="imu",
        **changes,
    )


ROVER = _rover("rover")
SECOND = _rover("second_rover", _BALL)
"""The same robot in a model in which a free ball comes first: its numbers lie elsewhere."""
CROOKED = _rover("crooked_rover", mirrored=False)

ROVER_ACTIONS = ActionsCfg(
    {
        "top": ActionTerm(actions.joint_position, ("mast",), scale=0.4, clip=(-2.0, 3.0)),
        "vane": ActionTerm(actions.joint_torque, ("vane",), scale=0.25),
        "wheels": ActionTerm(actions.joint_velocity, (".*_wheel",), scale=6.0, clip=(-1.0, 1.0)),
    }
)
"""In another order than the robot's joints."""


def senses() -> dict[str, ObsTerm | None]:
    return {
        "base_lin_vel": ObsTerm(observations.base_lin_vel, noise=0.1),
        "base_ang_vel": ObsTerm(observations.base_ang_vel, noise=0.1),
        "projected_gravity": ObsTerm(observations.projected_gravity, noise=0.03),
        "command": ObsTerm(observations.velocity_command),
        "joint_pos": ObsTerm(observations.joint_pos, noise=0.01),
        "joint_vel": ObsTerm(observations.joint_vel, noise=0.1),
        "last_action": ObsTerm(observations.last_action),
    }


def privileged() -> dict[str, ObsTerm | None]:
    clean = {name: replace(term, noise=0.0) for name, term in senses().items() if term is not None}
    unsensed = {"params": {"sensed": False}}
    return clean | {
        "joint_pos": replace(clean["joint_pos"], **unsensed),
        "joint_vel": replace(clean["joint_vel"], **unsensed),
        "base_height": ObsTerm(observations.base_height),
        "foot_contact": ObsTerm(observations.foot_contact),
        "foot_air_time": ObsTerm(observations.foot_air_time),
    }


def cfg_for(robot: Robot, actions_cfg: ActionsCfg, **changes: Any) -> EnvCfg:
    """Groups policy, critic, detector and fault; two rewards, three terminations, the usual resets."""
    torque_noise = tuple((0.005 * robot.effort_limit).tolist())
    cfg = EnvCfg(
        robot=robot.name,
        actions=actions_cfg,
        observations={
            "policy": ObsGroup(senses()),
            "critic": ObsGroup(privileged(), noise=False),
            "detector": ObsGroup(
                {"joint_torque": ObsTerm(observations.joint_torque, noise=torque_noise)}, base="policy"
            ),
            "fault": ObsGroup({"severity": ObsTerm(observations.fault_severity)}, noise=False),
        },
        rewards={
            "track_lin_vel_xy": RewardTerm(rewards.lin_vel_xy_error, 1.0, shape="exp", scale=0.5),
            "termination": RewardTerm(rewards.termination, -200.0),
        },
        terminations={
            "time_out": TerminationTerm(terminations.time_out, time_out=True),
            "base_low": TerminationTerm(terminations.base_low, {"height": robot.fall_height}),
            "bad_orientation": TerminationTerm(terminations.bad_orientation, {"limit": 0.5}),
        },
        events={"reset_base": EventTerm(events.reset_base), "reset_joints": EventTerm(events.reset_joints)},
        num_envs=4,
    )
    return replace(cfg, **changes)


def positions(scale: float | dict[str, float] = 0.5, delay: tuple[int, int] = (0, 0)) -> ActionsCfg:
    return ActionsCfg({"joint_position": ActionTerm(actions.joint_position, scale=scale)}, delay)


def h1(**changes: Any) -> EnvCfg:
    """Policy 69, critic 74, detector 88, fault 19 numbers."""
    return cfg_for(UNITREE_H1, positions(), **changes)


def go2(**changes: Any) -> EnvCfg:
    return cfg_for(UNITREE_GO2, positions(0.25), **changes)


def rover(robot: Robot = ROVER, **changes: Any) -> EnvCfg:
    return cfg_for(robot, changes.pop("actions", ROVER_ACTIONS), **changes)


def clean(cfg: EnvCfg) -> EnvCfg:
    """The same without noise."""
    return replace(cfg, observations={name: replace(g, noise=False) for name, g in cfg.observations.items()})


def endless(cfg: EnvCfg) -> EnvCfg:
    """The same where no episode ends."""
    return replace(cfg, terminations={})


def scripted(cfg: EnvCfg, *episodes: Sequence[Fault]) -> EnvCfg:
    """The same with one environment for each list of faults, all under the command (0.5, 0, 0)."""
    scenarios = Scenarios(cfg.robot, 0, tuple(Scenario(tuple(faults), (0.5, 0.0, 0.0), 0.0) for faults in episodes))
    return replace(cfg, faults=scenarios, num_envs=len(episodes))


def zeros(env: Env) -> Tensor:
    return torch.zeros(env.num_envs, env.action_space.dim)


def random_steps(env: Env, steps: int, seed: int = 0, size: float = 0.5) -> list[Step]:
    """Steps under random actions; every tensor of every step copied, for the environment may reuse them."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(steps):
        step = env.step(size * torch.randn(env.num_envs, env.action_space.dim, generator=generator))
        obs, final = ({name: value.clone() for name, value in o.items()} for o in (step.obs, step.final_obs))
        found.append(
            Step(obs, step.reward.clone(), step.terminated.clone(), step.truncated.clone(), final, step.extras)
        )
    return found


def assert_same_steps(one: list[Step], other: list[Step]) -> None:
    """Equal to the last bit."""
    for t, (a, b) in enumerate(zip(one, other, strict=True)):
        for name in ("reward", "terminated", "truncated"):
            assert torch.equal(getattr(a, name), getattr(b, name)), f"{name} of step {t}"
        for name in ("obs", "final_obs"):
            for group, value in getattr(a, name).items():
                assert torch.equal(value, getattr(b, name)[group]), f"{name} {group} of step {t}"
