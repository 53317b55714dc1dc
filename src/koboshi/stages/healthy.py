"""`koboshi train`: the healthy policy, and the gate that it must pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from koboshi import robots, runs
from koboshi.algos.learner import make_learner
from koboshi.bench.metrics import controller_metrics, gait_metrics
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.faults import sweep
from koboshi.nets.distributed import init_from_environment
from koboshi.policies import ActorCritic
from koboshi.policies.storage import load_weights, policy_meta
from koboshi.runs import RunFolder
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter
from koboshi.stages.folders import Start, open_run
from koboshi.stages.progress import watched_rollout
from koboshi.stages.training import check_devices, train_loop
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import GateCfg

MEMBERS = ["healthy"]


def check_start(task: TaskCfg, start: Start) -> None:
    """KoboshiError where the task goes on from another's policy and none is given, or what is given does not fit."""
    _check_given(task, start)
    if start.load is not None:
        env = Env(replace(task.env, num_envs=1))
        load_weights(start.load, make_learner(env, task.agent).policy, env, MEMBERS)


def _check_given(task: TaskCfg, start: Start) -> None:
    if start.load is None and task.goes_on_from is not None:
        raise KoboshiError(
            f"task '{task.name}' goes on from a policy of {task.goes_on_from}: give its run by --load, or "
            "goes_on_from=null to begin with nothing learnt"
        )


def train(
    task: TaskCfg,
    root: Path,
    name: str | None,
    overrides: list[str],
    start: Start = Start(),  # noqa: B008 (frozen)
) -> RunFolder:
    """Trains the healthy policy in `root/<task>/<name>`, or resumes it."""
    rank, world = init_from_environment()
    _check_given(task, start)
    trainer = task.agent.trainer
    check_devices(trainer.device, task.env.sim.device)
    env = Env(task.env)
    learner = make_learner(env, task.agent, rank)
    if start.load is not None:
        load_weights(start.load, learner.policy, env, MEMBERS)
    meta = policy_meta(env, task.name, learner.policy, MEMBERS)
    meta |= {"seed": trainer.seed, "commit": runs.git_commit()}
    with open_run(task, root, name, overrides, {"verb": "train"} | start.origin(), start.resume) as run:
        train_loop(
            run,
            learner,
            lambda: learner.iteration >= trainer.iterations,
            trainer.iterations,
            trainer.rollout * env.num_envs * world,
            trainer.checkpoint_interval,
            meta,
            f"train {task.name}",
            {"falls": "episode/falls", "v_x": "reward/track_lin_vel_xy", "KL": "loss/kl"},
        )
    return run


def gate(task: TaskCfg, cfg: GateCfg, healthy: ActorCritic) -> dict[str, Any]:
    """Figures of the healthy policy on held-out seeds; KoboshiError where it does not walk well enough."""
    robot = robots.find(task.env.robot)
    scenarios = sweep(robot, (None,), cfg.episodes, cfg.seed, commands=cfg.commands)
    controller = Controller(healthy.single(), None, HealthyRouter(len(robot.joint_names)))
    recording = watched_rollout("gate", task, controller, scenarios, cfg.seconds)
    figures = controller_metrics(recording, cfg.seconds) | gait_metrics(recording, cfg.seconds)
    short = shortfalls(cfg, figures)
    if short:
        raise KoboshiError(f"the healthy policy does not pass the gate: {'; '.join(short)}")
    return figures


def shortfalls(cfg: GateCfg, figures: dict[str, Any]) -> list[str]:
    """Each limit of the gate that the figures miss, and by how much.

    A figure is None where every robot had fallen before it counts; survival then says so.
    """
    limits: tuple[tuple[str, str, float | None, int], ...] = (
        ("survival", "survival_mean", cfg.survival, 1),
        ("v_x RMSE in m/s", "vx_rmse", cfg.vx_rmse, -1),
        ("v_y RMSE in m/s", "vy_rmse", cfg.vy_rmse, -1),
        ("yaw rate RMSE in rad/s", "yaw_rmse", cfg.yaw_rmse, -1),
        ("left–right duty difference", "duty_difference", cfg.duty_difference, -1),
    )
    return [
        f"{name} {figures[key]:.3f} must be at {'least' if sign > 0 else 'most'} {limit:g} "
        f"({abs(figures[key] - limit):.3f} too {'low' if sign > 0 else 'high'})"
        for name, key, limit, sign in limits
        if limit is not None and figures[key] is not None and sign * (figures[key] - limit) < 0
    ]
