"""An H1 that walks under velocity commands (Isaac Lab's flat H1 task, lighter) and loses one joint, whole.

The plain version of `h1-walk`: one kind of fault, in the very world that is trained in.
"""

from __future__ import annotations

from koboshi.algos.ppo import PPOCfg, TrainerCfg
from koboshi.envs import EnvCfg
from koboshi.envs.cfg import RewardTerm
from koboshi.envs.terms import rewards
from koboshi.faults import FaultsCfg
from koboshi.robots import UNITREE_H1
from koboshi.tasks import velocity
from koboshi.tasks.task import CollectCfg, DetectorStageCfg, TaskCfg

_HIPS, _ARMS = (".*_hip_yaw", ".*_hip_roll"), (".*_shoulder_.*", ".*_elbow")


def env_cfg() -> EnvCfg:
    """Policy 69, critic 74, detector 88 numbers."""
    return EnvCfg(
        robot=UNITREE_H1.name,
        actions=velocity.position_targets(scale=0.5),
        observations=velocity.walking_groups() | velocity.fault_groups(UNITREE_H1),
        rewards={
            "track_lin_vel_xy": RewardTerm(rewards.lin_vel_xy_error, 1.0, shape="exp", scale=0.5),
            "track_ang_vel_z": RewardTerm(rewards.ang_vel_z_error, 1.0, shape="exp", scale=0.5),
            "feet_air_time": RewardTerm(rewards.feet_air_time_biped, 1.0),
            "feet_slide": RewardTerm(rewards.feet_slide, -0.25),
            "ankle_limits": RewardTerm(rewards.joint_pos_limits, -1.0, {"joints": (".*_ankle",)}),
            "hip_deviation": RewardTerm(rewards.joint_deviation, -0.2, {"joints": _HIPS}, shape="l1"),
            "arm_deviation": RewardTerm(rewards.joint_deviation, -0.2, {"joints": _ARMS}, shape="l1"),
            "torso_deviation": RewardTerm(rewards.joint_deviation, -0.1, {"joints": ("torso",)}, shape="l1"),
            "flat_orientation": RewardTerm(rewards.flat_orientation, -1.0, shape="l2"),
            "action_rate": RewardTerm(rewards.action_rate, -0.005, shape="l2"),
            "joint_acc": RewardTerm(rewards.joint_acc, -1.25e-7, shape="l2"),
            "termination": RewardTerm(rewards.termination, -200.0),
        },
        terminations=velocity.falls(UNITREE_H1),
        events=velocity.resets() | velocity.randomisations(),
        num_envs=512,
    )


def agent_cfg() -> PPOCfg:
    """The healthy policy, which changes more in an iteration than usual, walks after half the samples, and settles."""
    return PPOCfg(trainer=TrainerCfg(timesteps=5280), desired_kl=0.03, final_kl=0.005, entropy_coef=0.005)


def h1_dead_joint() -> TaskCfg:
    """`koboshi … h1-dead-joint`."""
    return TaskCfg(
        "h1-dead-joint",
        env_cfg(),
        agent_cfg(),
        faults=FaultsCfg(),
        collect=CollectCfg(),
        detector=DetectorStageCfg(),
        specialists=velocity.specialists_cfg(final_kl=0.003),
    )
