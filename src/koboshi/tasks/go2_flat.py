"""A Go2 that trots on flat ground in any direction (Isaac Lab's flat Go2 task, its weights) and loses joints.

Two things make it walk within 1.5 M steps instead of shuffling for longer: exploration strong enough to lift a foot,
and the reward `trot` in place of `feet_air_time`, whose sum is negative until strides last half a second.
"""

from __future__ import annotations

from koboshi.algos.ppo import NetworkCfg, PPOCfg, TrainerCfg
from koboshi.envs import EnvCfg
from koboshi.envs.cfg import RewardTerm
from koboshi.envs.terms import rewards
from koboshi.faults import CommandRanges, FaultsCfg
from koboshi.robots import UNITREE_GO2
from koboshi.tasks import velocity
from koboshi.tasks.task import CollectCfg, DetectorStageCfg, EvaluateCfg, GateCfg, TaskCfg

DIAGONALS = (("FL_foot", "RR_foot"), ("FR_foot", "RL_foot"))
COMMANDS = CommandRanges(lin_vel_x=(-1.0, 1.0), lin_vel_y=(-0.5, 0.5), ang_vel_z=(-1.0, 1.0))


def env_cfg() -> EnvCfg:
    """Policy 48, critic 57, detector 60 numbers."""
    return EnvCfg(
        robot=UNITREE_GO2.name,
        actions=velocity.position_targets(scale=0.25),
        observations=velocity.walking_groups() | velocity.fault_groups(UNITREE_GO2),
        rewards={
            "track_lin_vel_xy": RewardTerm(rewards.lin_vel_xy_error, 1.5, shape="exp", scale=0.5),
            "track_ang_vel_z": RewardTerm(rewards.ang_vel_z_error, 0.75, shape="exp", scale=0.5),
            "lin_vel_z": RewardTerm(rewards.lin_vel_z, -2.0, shape="l2"),
            "ang_vel_xy": RewardTerm(rewards.ang_vel_xy, -0.05, shape="l2"),
            "joint_torque": RewardTerm(rewards.joint_torque, -2e-4, shape="l2"),
            "joint_acc": RewardTerm(rewards.joint_acc, -2.5e-7, shape="l2"),
            "action_rate": RewardTerm(rewards.action_rate, -0.01, shape="l2"),
            "trot": RewardTerm(rewards.trot, 1.0, {"pairs": DIAGONALS}),
            "flat_orientation": RewardTerm(rewards.flat_orientation, -2.5, shape="l2"),
            "termination": RewardTerm(rewards.termination, -200.0),
        },
        terminations=velocity.falls(UNITREE_GO2),
        events=velocity.resets() | velocity.randomisations(),
        command=velocity.asked(COMMANDS),
        num_envs=512,
    )


def go2_flat() -> TaskCfg:
    """`koboshi … go2-flat`."""
    return TaskCfg(
        "go2-flat",
        env_cfg(),
        PPOCfg(trainer=TrainerCfg(timesteps=2400), network=NetworkCfg(init_log_std=0.0)),
        faults=FaultsCfg(),
        collect=CollectCfg(),
        detector=DetectorStageCfg(),
        specialists=velocity.specialists_cfg(),
        gate=GateCfg(commands=COMMANDS, vx_rmse=0.10, vy_rmse=0.10, yaw_rmse=0.15),
        evaluate=EvaluateCfg(commands=COMMANDS),
    )
