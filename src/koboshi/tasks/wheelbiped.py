"""A biped on wheels that balances, drives and climbs stairs.

Weights: LimX Dynamics' flat task for TRON1 with wheel feet, where they have a term of ours.
"""

from __future__ import annotations

from dataclasses import replace

from koboshi.algos.ppo import NetworkCfg, PPOCfg, TrainerCfg
from koboshi.envs import EnvCfg
from koboshi.envs.cfg import CurriculumTerm, RewardTerm, SceneCfg
from koboshi.envs.terms import curriculum, rewards
from koboshi.faults import CommandRanges
from koboshi.robots import WHEELBIPED
from koboshi.robots.wheelbiped import WHEEL
from koboshi.tasks import rolling, velocity
from koboshi.tasks.task import EvaluateCfg, GateCfg, TaskCfg

LEGS, WHEELS = (".*_(abad|hip|knee)_joint",), (".*_wheel_joint",)
COMMANDS = CommandRanges(lin_vel_x=(-1.0, 1.0), lin_vel_y=(0.0, 0.0), ang_vel_z=(-0.6, 0.6))
HULL = ("base", ".*_abad")
"""What must not touch the ground."""


def _env_cfg() -> EnvCfg:
    """Policy 6 steps of 31 numbers."""
    return EnvCfg(
        robot=WHEELBIPED.name,
        scene=SceneCfg(contacts="body"),
        actions=rolling.legs_and_wheels(LEGS, WHEELS, 0.25, 5.0),
        observations=rolling.groups(LEGS),
        rewards=rolling.costs(LEGS, WHEELS)
        | {
            "alive": RewardTerm(rewards.alive, 1.0),
            "track_lin_vel_xy": RewardTerm(rewards.lin_vel_xy_error, 4.0, shape="exp", scale=0.3),
            "track_ang_vel_z": RewardTerm(rewards.ang_vel_z_error, 2.0, shape="exp", scale=0.5),
            "base_height": RewardTerm(rewards.base_height_error, -20.0, {"target": 0.78}, shape="l2"),
            "lin_vel_z": RewardTerm(rewards.lin_vel_z, -0.3, shape="l2"),
            "ang_vel_xy": RewardTerm(rewards.ang_vel_xy, -0.3, shape="l2"),
            "flat_orientation": RewardTerm(rewards.flat_orientation, -5.0, shape="l2"),
            "undesired_contacts": RewardTerm(rewards.undesired_contacts, -1.0, {"bodies": (".*_(hip|knee)",)}),
        },
        terminations=velocity.falls_by_contact(WHEELBIPED, HULL),
        events=velocity.resets(velocity=0.2) | velocity.randomisations(),
        command=velocity.asked(COMMANDS),
        num_envs=512,
        random_initial_length=True,
    )


def _agent(timesteps: int) -> PPOCfg:
    return PPOCfg(trainer=TrainerCfg(timesteps=timesteps), network=NetworkCfg(init_log_std=-0.5))


def wheelbiped_flat() -> TaskCfg:
    """`koboshi … wheelbiped-flat`."""
    gate = GateCfg(commands=COMMANDS, vx_rmse=0.10, vy_rmse=0.10, yaw_rmse=0.15)
    return TaskCfg("wheelbiped-flat", _env_cfg(), _agent(4800), gate=gate, evaluate=EvaluateCfg(commands=COMMANDS))


def wheelbiped_stairs() -> TaskCfg:
    """`koboshi … wheelbiped-stairs --load` a run of wheelbiped-flat: stairs and slopes, straight on.

    Half of it is stairs up, which take longest: at a friction of 1 a wheel rolls slowly up 1 − cos 45°, 0.29, of its
    radius, and higher only with a run-up or lifted."""
    env = _env_cfg()
    tracked = RewardTerm(rewards.lin_vel_xy_error, 4.0, {"frame": "world"}, shape="exp", scale=0.3)
    climbing = replace(
        env,
        scene=rolling.stairs_and_slopes(riser=0.20, up=0.5, columns=12),
        rewards=env.rewards
        | {
            "track_lin_vel_xy": tracked,
            "feet_lift": RewardTerm(rewards.feet_lift, 0.4, clip=(0.0, 2.0)),
            "feet_below_step": RewardTerm(rewards.feet_below_step, -10.0, {"reach": 0.2, "stands": WHEEL.radius}),
        },
        terminations=velocity.cell_by_cell(WHEELBIPED, HULL),
        events=rolling.straight_on() | velocity.randomisations(),
        curriculum={"terrain_levels": CurriculumTerm(curriculum.terrain_levels)},
        command=velocity.asked(rolling.AHEAD),
    )
    judged = EvaluateCfg(commands=rolling.AHEAD)
    return TaskCfg("wheelbiped-stairs", climbing, _agent(20000), evaluate=judged, goes_on_from="wheelbiped-flat")
