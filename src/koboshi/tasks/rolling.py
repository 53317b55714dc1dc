"""What tasks of wheel-legged robots share: legs are asked for positions and wheels for speeds, and nobody is told a
wheel's angle."""

from __future__ import annotations

from dataclasses import replace

from koboshi.envs.cfg import ActionsCfg, ActionTerm, EventTerm, ObsGroup, ObsTerm, RewardTerm, SceneCfg
from koboshi.envs.terms import actions, events, observations, rewards
from koboshi.faults import CommandRanges
from koboshi.tasks import velocity
from koboshi.terrain import GridCfg
from koboshi.terrain.shapes import AnySubTerrain, SlopeCfg, StairsCfg

HISTORY = 6
"""Steps that a policy sees."""


def legs_and_wheels(
    legs: tuple[str, ...], wheels: tuple[str, ...], leg_scale: float | dict[str, float], wheel_scale: float
) -> ActionsCfg:
    """Positions around the default pose (rad a unit) and speeds (rad/s a unit)."""
    return ActionsCfg(
        {
            "legs": ActionTerm(actions.joint_position, legs, scale=leg_scale),
            "wheels": ActionTerm(actions.joint_velocity, wheels, scale=wheel_scale),
        }
    )


def groups(legs: tuple[str, ...]) -> dict[str, ObsGroup]:
    """A blind policy with a history, and a critic that sees everything but wheels' angles, and the ground."""
    sensed = velocity.blind_senses()
    seen = velocity.privileged() | {
        "foot_height": ObsTerm(observations.foot_height),
        "height_scan": ObsTerm(observations.height_scan, clip=1.5),
    }
    for terms in (sensed, seen):
        term = terms["joint_pos"]
        assert term is not None
        terms["joint_pos"] = replace(term, params=term.params | {"joints": legs})
    return {
        "policy": ObsGroup(sensed, history_length=HISTORY, newest_first=True),
        "critic": ObsGroup(seen, noise=False),
    }


def costs(legs: tuple[str, ...], wheels: tuple[str, ...]) -> dict[str, RewardTerm | None]:
    """What all of them pay for; joint accelerations of wheels cost a hundredth of those of legs."""
    of_legs = {"joints": legs}
    return {
        "lin_vel_z": RewardTerm(rewards.lin_vel_z, -2.0, shape="l2"),
        "ang_vel_xy": RewardTerm(rewards.ang_vel_xy, -0.05, shape="l2"),
        "joint_torque": RewardTerm(rewards.joint_torque, -2.5e-5, of_legs, shape="l2"),
        "joint_acc": RewardTerm(rewards.joint_acc, -2.5e-7, of_legs, shape="l2"),
        "wheel_acc": RewardTerm(rewards.joint_acc, -2.5e-9, {"joints": wheels}, shape="l2"),
        "joint_power": RewardTerm(rewards.joint_power, -2e-5, of_legs),
        "pose": RewardTerm(rewards.joint_deviation, -0.1, of_legs, shape="l1"),
        "pose_mirror": RewardTerm(rewards.pose_mirror, -0.05, of_legs, shape="l2"),
        "action_rate": RewardTerm(rewards.action_rate, -0.01, shape="l2"),
        "flat_orientation": RewardTerm(rewards.flat_orientation, -1.0, shape="l2"),
        "termination": RewardTerm(rewards.termination, -20.0),
    }


AHEAD = CommandRanges(lin_vel_x=(0.3, 1.0), lin_vel_y=(0.0, 0.0), ang_vel_z=(-0.001, 0.001))
"""What is asked for on stairs."""


def straight_on() -> dict[str, EventTerm | None]:
    """Robots begin looking along the world's x, across the stairs, and are hardly asked to turn."""
    return velocity.resets() | {"reset_base": EventTerm(events.reset_base, params={"heading": (-0.1, 0.1)})}


def stairs_and_slopes(riser: float, up: float = 0.25, columns: int = 8) -> SceneCfg:
    """Stairs up, a share of `up`, and down, and slopes up and down, which share the rest: in 20 levels, so that each is
    little harder than the one before."""
    rest, risers = (1 - up) / 3, (0.02, riser)
    cells: dict[str, AnySubTerrain | None] = {
        "slope_up": SlopeCfg(share=rest),
        "slope_down": SlopeCfg(share=rest, up=False),
        "stairs_up": StairsCfg(share=up, riser=risers),
        "stairs_down": StairsCfg(share=rest, riser=risers, up=False),
    }
    return SceneCfg(GridCfg(cells, levels=20, columns=columns), contacts="body")
