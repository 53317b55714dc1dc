"""An H1 that walks on flat ground under velocity commands: Isaac Lab's flat H1 task, lighter."""

from __future__ import annotations

from koboshi.algos.ppo import NetworkCfg, PPOCfg, TrainerCfg
from koboshi.envs import EnvCfg
from koboshi.envs.cfg import ActionsCfg, ActionTerm, EventTerm, ObsGroup, ObsTerm, RewardTerm, TerminationTerm
from koboshi.envs.terms import actions, events, observations, rewards, terminations
from koboshi.faults import FaultSchedule
from koboshi.robots import UNITREE_H1
from koboshi.specialists.training import SpecialistsCfg
from koboshi.tasks.task import TaskCfg

TORQUE_NOISE = tuple((0.005 * UNITREE_H1.effort_limit).tolist())
"""Half a per cent of each joint's range, N·m: currents are measured to a share of what the motor may draw."""


def _senses() -> dict[str, ObsTerm | None]:
    """What a real robot senses. Noise is uniform; joint velocities are those of filtered encoders."""
    return {
        "base_lin_vel": ObsTerm(observations.base_lin_vel, noise=0.1),
        "base_ang_vel": ObsTerm(observations.base_ang_vel, noise=0.1),
        "projected_gravity": ObsTerm(observations.projected_gravity, noise=0.03),
        "command": ObsTerm(observations.velocity_command),
        "joint_pos": ObsTerm(observations.joint_pos, noise=0.01),
        "joint_vel": ObsTerm(observations.joint_vel, noise=0.1),
        "last_action": ObsTerm(observations.last_action),
    }


def _privileged() -> dict[str, ObsTerm | None]:
    """The critic's clean, undelayed view, and what no sensor shows."""
    return {
        "base_lin_vel": ObsTerm(observations.base_lin_vel),
        "base_ang_vel": ObsTerm(observations.base_ang_vel),
        "projected_gravity": ObsTerm(observations.projected_gravity),
        "command": ObsTerm(observations.velocity_command),
        "joint_pos": ObsTerm(observations.joint_pos, {"sensed": False}),
        "joint_vel": ObsTerm(observations.joint_vel, {"sensed": False}),
        "last_action": ObsTerm(observations.last_action),
        "base_height": ObsTerm(observations.base_height),
        "foot_contact": ObsTerm(observations.foot_contact),
        "foot_air_time": ObsTerm(observations.foot_air_time),
    }


def env_cfg() -> EnvCfg:
    """Policy 69, critic 74, detector 88 numbers; nobody breaks unless `change_joint_torque` is told to."""
    return EnvCfg(
        robot=UNITREE_H1.name,
        actions=ActionsCfg({"joint_position": ActionTerm(actions.joint_position, scale=0.5)}),
        observations={
            "policy": ObsGroup(_senses()),
            "critic": ObsGroup(_privileged(), noise=False),
            "detector": ObsGroup(
                {"joint_torque": ObsTerm(observations.joint_torque, noise=TORQUE_NOISE)}, base="policy"
            ),
            "fault": ObsGroup({"severity": ObsTerm(observations.fault_severity)}, noise=False),
        },
        rewards={
            "track_lin_vel_xy": RewardTerm(rewards.lin_vel_xy_error, 1.0, shape="exp", scale=0.5),
            "track_ang_vel_z": RewardTerm(rewards.ang_vel_z_error, 1.0, shape="exp", scale=0.5),
            "feet_air_time": RewardTerm(rewards.feet_air_time_biped, 1.0),
            "feet_slide": RewardTerm(rewards.feet_slide, -0.25),
            "ankle_limits": RewardTerm(rewards.joint_pos_limits, -1.0, {"joints": (".*_ankle",)}),
            "hip_deviation": RewardTerm(
                rewards.joint_deviation, -0.2, {"joints": (".*_hip_yaw", ".*_hip_roll")}, shape="l1"
            ),
            "arm_deviation": RewardTerm(
                rewards.joint_deviation, -0.2, {"joints": (".*_shoulder_.*", ".*_elbow")}, shape="l1"
            ),
            "torso_deviation": RewardTerm(rewards.joint_deviation, -0.1, {"joints": ("torso",)}, shape="l1"),
            "flat_orientation": RewardTerm(rewards.flat_orientation, -1.0, shape="l2"),
            "action_rate": RewardTerm(rewards.action_rate, -0.005, shape="l2"),
            "joint_acc": RewardTerm(rewards.joint_acc, -1.25e-7, shape="l2"),
            "termination": RewardTerm(rewards.termination, -200.0),
        },
        terminations={
            "time_out": TerminationTerm(terminations.time_out, time_out=True),
            "base_low": TerminationTerm(terminations.base_low, {"height": UNITREE_H1.fall_height}),
            "bad_orientation": TerminationTerm(terminations.bad_orientation, {"limit": 0.5}),
        },
        events={
            "reset_base": EventTerm(events.reset_base),
            "reset_joints": EventTerm(events.reset_joints),
        },
    )


def agent_cfg() -> PPOCfg:
    """The healthy policy: 1024 environments × 24 steps an iteration, with the mirror loss."""
    return PPOCfg(trainer=TrainerCfg(timesteps=5760))


def specialists_cfg() -> SpecialistsCfg:
    """Few, large minibatches and a small first rate: the weights already walk."""
    return SpecialistsCfg(
        agent=PPOCfg(
            trainer=TrainerCfg(timesteps=1),
            network=NetworkCfg(init_log_std=-0.9),
            minibatches=1,
            learning_rate=1e-4,
            entropy_coef=0.002,
            mirror_coef=0.0,
        )
    )


def h1_walk() -> TaskCfg:
    """`koboshi … h1-walk`."""
    return TaskCfg("h1-walk", env_cfg(), agent_cfg(), specialists_cfg())
