"""A blind Go2 on slopes, stairs and boxes (the set of HIM and of Isaac Lab's rough task).

Rewards start from those of Hybrid Internal Model (Long et al. 2024) for the Go1. With them alone a Go2 of 512
environments stood still for 4 M steps, so here `trot` is rewarded, commands weigh half as much again, second
differences of actions cost nothing (exploration is made of them), clearance weighs enough to be felt, what must not
touch costs, and worlds begin to differ by and by.
"""

from __future__ import annotations

from dataclasses import replace

from koboshi.algos.ppo import NetworkCfg, PPOCfg, TrainerCfg
from koboshi.envs import EnvCfg
from koboshi.envs.cfg import (
    CurriculumTerm,
    EventTerm,
    ObsGroup,
    ObsTerm,
    RewardTerm,
    SceneCfg,
    VelocityCommandCfg,
)
from koboshi.envs.terms import curriculum, events, observations, rewards
from koboshi.faults import FaultsCfg
from koboshi.robots import UNITREE_GO2
from koboshi.tasks import velocity
from koboshi.tasks.go2_flat import COMMANDS, DIAGONALS
from koboshi.tasks.task import CollectCfg, DetectorStageCfg, EvaluateCfg, GateCfg, TaskCfg
from koboshi.terrain import GridCfg
from koboshi.terrain.shapes import BoxesCfg, SlopeCfg, StairsCfg

GROUND = GridCfg(
    types={
        "slope_up": SlopeCfg(share=0.05),
        "slope_down": SlopeCfg(share=0.05, up=False),
        "rough_slope_up": SlopeCfg(share=0.1, noise=(0.01, 0.05)),
        "rough_slope_down": SlopeCfg(share=0.1, up=False, noise=(0.01, 0.05)),
        "stairs_up": StairsCfg(share=0.3),
        "stairs_down": StairsCfg(share=0.3, up=False),
        "boxes": BoxesCfg(share=0.1),
    },
    levels=10,
    columns=20,
)

LAST_FAULTY = 3
"""The highest of the levels on which joints die."""
_HEIGHT = {"target": 0.3, "size": (0.6, 0.4), "resolution": 0.2}


def env_cfg() -> EnvCfg:
    """Policy 6 steps of 45 numbers, critic 64 and 187 heights."""
    sensed = velocity.blind_senses()
    seen = velocity.privileged() | {
        "foot_height": ObsTerm(observations.foot_height),
        "external_force": ObsTerm(observations.external_force),
        "height_scan": ObsTerm(observations.height_scan, clip=1.5),
    }
    return EnvCfg(
        robot=UNITREE_GO2.name,
        scene=SceneCfg(GROUND, contacts="body"),
        actions=replace(velocity.position_targets(scale=0.25), delay=(0, 3)),
        observations={
            "policy": ObsGroup(sensed, history_length=6, newest_first=True),
            "critic": ObsGroup(seen, noise=False),
        },
        rewards={
            "track_lin_vel_xy": RewardTerm(rewards.lin_vel_xy_error, 1.5, shape="exp", scale=0.5),
            "track_ang_vel_z": RewardTerm(rewards.ang_vel_z_error, 0.75, shape="exp", scale=0.5),
            "trot": RewardTerm(rewards.trot, 1.0, {"pairs": DIAGONALS}),
            "lin_vel_z": RewardTerm(rewards.lin_vel_z, -2.0, shape="l2"),
            "ang_vel_xy": RewardTerm(rewards.ang_vel_xy, -0.05, shape="l2"),
            "flat_orientation": RewardTerm(rewards.flat_orientation, -0.2, shape="l2"),
            "joint_acc": RewardTerm(rewards.joint_acc, -2.5e-7, shape="l2"),
            "joint_power": RewardTerm(rewards.joint_power, -2e-5),
            "base_height": RewardTerm(rewards.base_height_error, -1.0, _HEIGHT, shape="l2"),
            "feet_clearance": RewardTerm(rewards.feet_clearance_body, -2.0, {"target": -0.2}),
            "action_rate": RewardTerm(rewards.action_rate, -0.01, shape="l2"),
            "undesired_contacts": RewardTerm(rewards.undesired_contacts, -0.1, {"bodies": (".*_thigh", ".*_calf")}),
            "termination": RewardTerm(rewards.termination, -20.0),
        },
        terminations=velocity.cell_by_cell(UNITREE_GO2, ("base",)),
        events=velocity.resets() | velocity.randomisations() | _differing_worlds(),
        curriculum={
            "terrain_levels": CurriculumTerm(curriculum.terrain_levels),
            "events": CurriculumTerm(curriculum.grow_events, {"steps": 5000}),
        },
        command=velocity.one_command(COMMANDS, EnvCfg.episode_length_s),
        num_envs=512,
        random_initial_length=True,
    )


def _differing_worlds() -> dict[str, EventTerm | None]:
    """What Hybrid Internal Model is trained under; its force of 30 N is a third as large here, where it lasts as long
    as an episode."""
    near_one = (0.9, 1.1)
    return {
        "friction": EventTerm(events.randomise_friction, params={"range": (0.2, 1.25)}),
        "mass": EventTerm(events.randomise_mass, params={"add": (-1.0, 2.0)}),
        "com": EventTerm(events.randomise_com, params={"shift": (-0.05, 0.05)}),
        "gains": EventTerm(events.randomise_gains, params={"stiffness": near_one, "damping": near_one}),
        "strength": EventTerm(events.randomise_strength, params={"range": near_one}),
        "force": EventTerm(events.external_force, params={"force": (-10.0, 10.0)}),
        "push": EventTerm(events.push, "interval", {"velocity": 1.0}, interval_s=(16.0, 16.0)),
    }


def go2_rough() -> TaskCfg:
    """`koboshi … go2-rough`."""
    return TaskCfg("go2-rough", env_cfg(), _agent(20000))


def go2_rough_faults() -> TaskCfg:
    """`koboshi pipeline go2-rough-faults --load` a run of go2-rough: joints die on the first of its levels, up to
    `LAST_FAULTY`. The policy settles there for a short while before anything breaks."""
    env = env_cfg()
    groups = velocity.fault_groups(UNITREE_GO2)
    # A detector has a memory of its own, and so no use for the policy's history.
    groups["detector"] = ObsGroup(velocity.blind_senses() | groups["detector"].terms)
    ground = replace(GROUND, levels=LAST_FAULTY + 1, difficulty=(0.0, LAST_FAULTY / (GROUND.levels - 1)))
    easier = replace(
        env,
        scene=replace(env.scene, ground=replace(ground, first_level=None)),
        observations=env.observations | groups,
        terminations=velocity.falls_by_contact(UNITREE_GO2, ("base",)),
        curriculum={},
        # Of those who look on some give other commands at any time.
        command=replace(env.command, resampling_time_s=VelocityCommandCfg.resampling_time_s),
    )
    return TaskCfg(
        "go2-rough-faults",
        easier,
        _agent(480),
        faults=FaultsCfg(),
        collect=CollectCfg(),
        detector=DetectorStageCfg(),
        specialists=velocity.specialists_cfg(),
        gate=GateCfg(commands=COMMANDS, survival=0.95, vx_rmse=None, duty_difference=None),
        evaluate=EvaluateCfg(commands=COMMANDS),
        goes_on_from="go2-rough",
    )


def _agent(timesteps: int) -> PPOCfg:
    """Robots that keep exploring fall on stairs that they could climb, so entropy earns little."""
    trainer = TrainerCfg(timesteps=timesteps)
    return PPOCfg(trainer=trainer, network=NetworkCfg(init_log_std=0.0), entropy_coef=0.004)
