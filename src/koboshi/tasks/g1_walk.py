"""A G1 that walks on flat ground under velocity commands (Isaac Lab's flat G1 task, lighter) and loses joints.

Light and softly driven, it falls within a second however it explores, so learning starts gently: upper joints
explore little, episodes start almost at rest, and the policy may change more in an iteration. Without a reward for
standing on one foot at a time it follows commands by hopping on both feet.
"""

from __future__ import annotations

from dataclasses import replace

from koboshi.algos.ppo import NetworkCfg, PPOCfg, TrainerCfg
from koboshi.envs import EnvCfg
from koboshi.envs.cfg import ActionsCfg, ActionTerm, RewardTerm
from koboshi.envs.terms import actions, rewards
from koboshi.faults import FaultsCfg
from koboshi.robots import UNITREE_G1
from koboshi.tasks import velocity
from koboshi.tasks.task import CollectCfg, DetectorStageCfg, EvaluateCfg, TaskCfg

_HIPS = (".*_hip_yaw_joint", ".*_hip_roll_joint")
_ARMS = (".*_shoulder_.*_joint", ".*_elbow_joint", ".*_wrist_.*_joint")
_WAIST = ("waist_.*_joint",)
_LEGS = (".*_(hip|knee|ankle)_.*",)


def env_cfg() -> EnvCfg:
    """Policy 99, critic 104, detector 128 numbers."""
    return EnvCfg(
        robot=UNITREE_G1.name,
        actions=ActionsCfg(
            {
                "legs": ActionTerm(actions.joint_position, _LEGS, scale=0.5),
                "upper": ActionTerm(actions.joint_position, (*_WAIST, *_ARMS), scale=0.15),
            }
        ),
        observations=velocity.walking_groups() | velocity.fault_groups(UNITREE_G1),
        rewards={
            "track_lin_vel_xy": RewardTerm(rewards.lin_vel_xy_error, 1.0, shape="exp", scale=0.5),
            "track_ang_vel_z": RewardTerm(rewards.ang_vel_z_error, 2.0, shape="exp", scale=0.5),
            "feet_air_time": RewardTerm(rewards.feet_air_time_biped, 2.0),
            "single_stance": RewardTerm(
                rewards.trot, 1.0, {"pairs": (("left_foot",), ("right_foot",)), "longest": 0.7}
            ),
            "feet_slide": RewardTerm(rewards.feet_slide, -0.1),
            "ankle_limits": RewardTerm(rewards.joint_pos_limits, -1.0, {"joints": (".*_ankle_.*",)}),
            "hip_deviation": RewardTerm(rewards.joint_deviation, -0.1, {"joints": _HIPS}, shape="l1"),
            "arm_deviation": RewardTerm(rewards.joint_deviation, -0.1, {"joints": _ARMS}, shape="l1"),
            "waist_deviation": RewardTerm(rewards.joint_deviation, -0.1, {"joints": _WAIST}, shape="l1"),
            "flat_orientation": RewardTerm(rewards.flat_orientation, -1.0, shape="l2"),
            "action_rate": RewardTerm(rewards.action_rate, -0.005, shape="l2"),
            "joint_acc": RewardTerm(rewards.joint_acc, -1e-7, shape="l2"),
            "termination": RewardTerm(rewards.termination, -200.0),
        },
        terminations=velocity.falls(UNITREE_G1),
        events=velocity.resets(velocity=0.2) | velocity.randomisations(),
        num_envs=512,
    )


def g1_walk() -> TaskCfg:
    """`koboshi … g1-walk`."""
    return TaskCfg(
        "g1-walk",
        env_cfg(),
        PPOCfg(
            trainer=TrainerCfg(timesteps=9600),
            network=NetworkCfg(init_log_std=-0.7),
            desired_kl=0.03,
            entropy_coef=0.005,
        ),
        faults=FaultsCfg(),
        collect=CollectCfg(),
        detector=DetectorStageCfg(),
        specialists=replace(velocity.specialists_cfg(), num_envs=1344, stages=(400, 400, 400, 400, 400, 400, 1600)),
        # Each delay costs 750 episodes, minutes with a body of 29 joints.
        evaluate=EvaluateCfg(oracle_delays_s=(0.2,)),
    )
