"""`koboshi train`: the healthy policy, and the gate that it must pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from koboshi import config, runs
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
from koboshi.stages.progress import watched_rollout
from koboshi.stages.training import train_loop
from koboshi.tasks import TaskCfg


def begin_run(run: RunFolder, task: TaskCfg, overrides: list[str]) -> None:
    """Writes what the run was made with; a run that exists must have been made with the same."""
    path = run.path / "config.yaml"
    if path.exists():
        changed = config.diff(config.load_yaml(path, task), task)
        if changed:
            raise KoboshiError(f"run {run.path} exists with other settings ({'; '.join(changed[:4])}); rename one")
        return
    config.save_yaml(path, task)
    runs.write_atomic(run.path / "overrides.txt", "".join(f"{line}\n" for line in overrides).encode())


def train(task: TaskCfg, root: Path, name: str | None, overrides: list[str]) -> RunFolder:
    """Trains the healthy policy in `root/<task>/<name>`, or goes on with it."""
    rank, world = init_from_environment()
    env = Env(task.env)
    learner = PPO(env, task.agent, mirror=mirror_of(env), rank=rank)
    run = RunFolder.open(root if rank == 0 else root / f".rank{rank}", task.name, name)
    begin_run(run, task, overrides)
    meta = policy_meta(env, task.name, task.agent.network, ["healthy"]) | _origin(task)
    trainer = task.agent.trainer
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
    short = [
        f"{name} {figures[key]:.3f}, {'at least' if sign > 0 else 'at most'} {limit}"
        for name, key, limit, sign in (
            ("survival", "survival_mean", cfg.survival, 1),
            ("v_x RMSE", "vx_rmse", cfg.vx_rmse, -1),
            ("left–right duty difference", "duty_difference", cfg.duty_difference, -1),
        )
        if sign * (figures[key] - limit) < 0
    ]
    if short:
        raise KoboshiError(f"the healthy policy does not pass the gate: {'; '.join(short)}")
    return figures
