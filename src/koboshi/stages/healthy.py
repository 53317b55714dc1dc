"""`koboshi train`: the healthy policy, and the gate that it must pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from koboshi import runs
from koboshi.algos.ppo import PPO, ActorCritic
from koboshi.bench.metrics import controller_metrics, gait_metrics
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.faults import joint_sweep
from koboshi.nets.distributed import init_from_environment
from koboshi.robots import ROBOTS
from koboshi.runs import RunFolder
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter
from koboshi.specialists.storage import mirror_of, policy_meta
from koboshi.stages.folders import open_run
from koboshi.stages.progress import watched_rollout
from koboshi.stages.training import train_loop
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import GateCfg


def train(task: TaskCfg, root: Path, name: str | None, overrides: list[str]) -> RunFolder:
    """Trains the healthy policy in `root/<task>/<name>`, or goes on with it."""
    rank, world = init_from_environment()
    env = Env(task.env)
    learner = PPO(env, task.agent, mirror=mirror_of(env), rank=rank)
    meta = policy_meta(env, task.name, task.agent.network, ["healthy"]) | _origin(task)
    trainer = task.agent.trainer
    own_root = root if rank == 0 else root / f".rank{rank}"
    with open_run(task, own_root, name, overrides, {"verb": "train"}) as run:
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


def _origin(task: TaskCfg) -> dict[str, Any]:
    return {"seed": task.agent.trainer.seed, "commit": runs.git_commit()}


def gate(task: TaskCfg, healthy: ActorCritic) -> dict[str, Any]:
    """Figures of the healthy policy on held-out seeds; KoboshiError where it does not walk well enough."""
    cfg = task.gate
    scenarios = joint_sweep(ROBOTS[task.env.robot], (None,), cfg.episodes, cfg.seed)
    controller = Controller(healthy, None, HealthyRouter())
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
    limits = (
        ("survival", "survival_mean", cfg.survival, 1),
        ("v_x RMSE in m/s", "vx_rmse", cfg.vx_rmse, -1),
        ("left–right duty difference", "duty_difference", cfg.duty_difference, -1),
    )
    return [
        f"{name} {figures[key]:.3f} must be at {'least' if sign > 0 else 'most'} {limit:g} "
        f"({abs(figures[key] - limit):.3f} too {'low' if sign > 0 else 'high'})"
        for name, key, limit, sign in limits
        if figures[key] is not None and sign * (figures[key] - limit) < 0
    ]
