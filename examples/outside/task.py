"""A task of your own for a robot of your own:

    koboshi train pup-trot --module examples/outside/robot.py --module examples/outside/task.py

Isaac Lab's rewards of a flat quadruped, a few of them; nothing breaks. With `faults`, `collect`, `detector` and
`specialists`, as in `go2_flat.py`, it would go through the whole pipeline.
"""

from __future__ import annotations

from koboshi import robots
from koboshi.algos.ppo import NetworkCfg, PPOCfg, TrainerCfg
from koboshi.envs import EnvCfg
from koboshi.envs.cfg import RewardTerm, VelocityCommandCfg
from koboshi.envs.terms import rewards
from koboshi.faults import CommandRanges
from koboshi.tasks import velocity
from koboshi.tasks.task import EvaluateCfg, GateCfg, TaskCfg

_DIAGONALS = (("LF_foot", "RH_foot"), ("RF_foot", "LH_foot"))
_COMMANDS = CommandRanges(lin_vel_x=(-0.5, 1.0), lin_vel_y=(0.0, 0.0), ang_vel_z=(-1.0, 1.0))


def pup_trot() -> TaskCfg:
    """`koboshi … pup-trot`."""
    pup = robots.find("pup")
    env = EnvCfg(
        robot=pup.name,
        actions=velocity.position_targets(scale=0.25),
        observations=velocity.walking_groups(),
        rewards={
            "track_lin_vel_xy": RewardTerm(rewards.lin_vel_xy_error, 1.5, shape="exp", scale=0.5),
            "track_ang_vel_z": RewardTerm(rewards.ang_vel_z_error, 0.75, shape="exp", scale=0.5),
            "trot": RewardTerm(rewards.trot, 1.0, {"pairs": _DIAGONALS}),
            "lin_vel_z": RewardTerm(rewards.lin_vel_z, -2.0, shape="l2"),
            "ang_vel_xy": RewardTerm(rewards.ang_vel_xy, -0.05, shape="l2"),
            "flat_orientation": RewardTerm(rewards.flat_orientation, -2.5, shape="l2"),
            "action_rate": RewardTerm(rewards.action_rate, -0.01, shape="l2"),
            "joint_torque": RewardTerm(rewards.joint_torque, -2e-4, shape="l2"),
        },
        terminations=velocity.falls(pup),
        events=velocity.resets() | velocity.randomisations(),
        command=VelocityCommandCfg(_COMMANDS.lin_vel_x, _COMMANDS.lin_vel_y, _COMMANDS.ang_vel_z),
        num_envs=512,
    )
    agent = PPOCfg(trainer=TrainerCfg(timesteps=3600), network=NetworkCfg(init_log_std=0.0))
    return TaskCfg("pup-trot", env, agent, gate=GateCfg(commands=_COMMANDS), evaluate=EvaluateCfg(commands=_COMMANDS))


TASKS = {"pup-trot": pup_trot}
"""What `--module` looks for."""
