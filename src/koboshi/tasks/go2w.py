"""A blind Go2-W that learns to lift its wheels on stairs, and goes on from there on all rough ground.

Weights and scales: robot_lab's Go2-W task. What made wheels climb: the speed along the world's x is rewarded rather
than that along the robot, so that turning away earns nothing; turning is hardly asked for; feet that rise earn
something; and stairs grow in 20 small levels, half of the cells slopes.
"""

from __future__ import annotations

from dataclasses import replace

from koboshi.algos.ppo import NetworkCfg, PPOCfg, TrainerCfg
from koboshi.envs import EnvCfg
from koboshi.envs.cfg import CurriculumTerm, RewardTerm, SceneCfg
from koboshi.envs.terms import curriculum, rewards
from koboshi.robots import UNITREE_GO2W
from koboshi.tasks import rolling, velocity
from koboshi.tasks.go2_flat import COMMANDS
from koboshi.tasks.go2_rough import GROUND
from koboshi.tasks.task import EvaluateCfg, TaskCfg

LEGS, WHEELS = (".*_(hip|thigh|calf)_joint",), (".*_foot_joint",)


def _env_cfg() -> EnvCfg:
    """Policy 6 steps of 53 numbers."""
    scales = {".*_hip_joint": 0.125, ".*": 0.25}
    return EnvCfg(
        robot=UNITREE_GO2W.name,
        scene=rolling.stairs_and_slopes(riser=0.23),
        actions=rolling.legs_and_wheels(LEGS, WHEELS, scales, 5.0),
        observations=rolling.groups(LEGS),
        rewards=rolling.costs(LEGS, WHEELS)
        | {
            "track_lin_vel_xy": RewardTerm(rewards.lin_vel_xy_error, 3.0, {"frame": "world"}, shape="exp", scale=0.5),
            "track_ang_vel_z": RewardTerm(rewards.ang_vel_z_error, 1.5, shape="exp", scale=0.5),
            "feet_lift": RewardTerm(rewards.feet_lift, 0.2, clip=(0.0, 2.0)),
            "undesired_contacts": RewardTerm(rewards.undesired_contacts, -1.0, {"bodies": (".*_thigh", ".*_hip")}),
        },
        terminations=velocity.cell_by_cell(UNITREE_GO2W, ("base",)),
        events=rolling.straight_on() | velocity.randomisations(),
        curriculum={"terrain_levels": CurriculumTerm(curriculum.terrain_levels)},
        command=velocity.asked(rolling.AHEAD),
        num_envs=512,
        random_initial_length=True,
    )


def _agent(timesteps: int) -> PPOCfg:
    return PPOCfg(trainer=TrainerCfg(timesteps=timesteps), network=NetworkCfg(init_log_std=0.0))


def go2w_stairs() -> TaskCfg:
    """`koboshi … go2w-stairs`."""
    return TaskCfg("go2w-stairs", _env_cfg(), _agent(12000), evaluate=EvaluateCfg(commands=rolling.AHEAD))


def go2w_rough() -> TaskCfg:
    """`koboshi … go2w-rough --load` a run of go2w-stairs: all of `go2-rough`'s ground, in any direction."""
    env = _env_cfg()
    tracked = RewardTerm(rewards.lin_vel_xy_error, 3.0, shape="exp", scale=0.5)
    rough = replace(
        env,
        scene=SceneCfg(GROUND, contacts="body"),
        rewards=env.rewards | {"track_lin_vel_xy": tracked},
        events=velocity.resets() | velocity.randomisations(),
        command=velocity.one_command(COMMANDS, EnvCfg.episode_length_s),
    )
    judged = EvaluateCfg(commands=COMMANDS)
    return TaskCfg("go2w-rough", rough, _agent(12000), evaluate=judged, goes_on_from="go2w-stairs")
