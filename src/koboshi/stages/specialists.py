"""`koboshi specialists`: all specialists in one masked batch, then each on its own file and the bank as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from koboshi import runs
from koboshi.algos.ppo import ActorCritic
from koboshi.envs import Env
from koboshi.robots import ROBOTS
from koboshi.runs import RunFolder
from koboshi.specialists.assignment import Assignment, assign
from koboshi.specialists.routing import DetectorRouter, OracleRouter, Router
from koboshi.specialists.storage import load_healthy, load_policy, policy_meta, save_policy
from koboshi.specialists.training import BankTrainer, check_divisible, specialist_env_cfg
from koboshi.stages.detector import load_for
from koboshi.stages.folders import open_run
from koboshi.stages.training import train_loop
from koboshi.tasks import TaskCfg

BANK = "bank.safetensors"


def bank_assignment(task: TaskCfg) -> Assignment:
    """Which specialist serves which joint."""
    joints = task.collect.schedule.joints
    return assign(ROBOTS[task.env.robot], task.specialists.sharing, joints)


def train(
    task: TaskCfg, healthy_path: Path, detector_path: Path | None, root: Path, name: str | None, overrides: list[str]
) -> RunFolder:
    """Trains the bank, or goes on with it. Without a detector an oracle (late by chance) does the switching."""
    assignment, settings = bank_assignment(task), task.specialists
    check_divisible(settings, assignment)
    env = Env(specialist_env_cfg(task.env, assignment, settings))
    healthy = load_healthy(healthy_path, env)[0]
    router = _router(task, detector_path)
    trainer = BankTrainer(task.env, settings, healthy, assignment, lambda: router)
    origin = {
        "healthy": runs.digest(healthy_path),
        "detector": runs.digest(detector_path) if detector_path else None,
    }
    meta = policy_meta(env, task.name, settings.agent.network, [m.name for m in assignment.members])
    meta |= origin | {"seed": settings.agent.trainer.seed, "commit": runs.git_commit()}
    rollout = settings.agent.trainer.rollout
    with open_run(task, root, name, overrides, {"verb": "specialists"} | origin) as run:
        train_loop(
            run,
            trainer,
            lambda: trainer.done,
            sum(-(-steps // rollout) for steps in settings.stages),
            rollout * settings.num_envs,
            settings.agent.trainer.checkpoint_interval,
            meta,
            f"specialists {task.name}",
            {"stage": "bank/stage", "members": "bank/members", "falls/s": "bank/falls_per_s", "KL": "loss/kl"},
        )
        _save_members(run, trainer, assignment, meta)
    return run


def _router(task: TaskCfg, detector_path: Path | None) -> Router:
    if detector_path is None:
        return OracleRouter(task.env.step_dt, task.specialists.switch_delay_s)
    return DetectorRouter(*load_for(task, detector_path))


def _save_members(run: RunFolder, trainer: BankTrainer, assignment: Assignment, meta: dict[str, Any]) -> None:
    for k, member in enumerate(assignment.members):
        figures = {"members": [member.name], "falls_per_s": float(trainer.falls[k])}
        save_policy(run.path / "members" / f"{member.name}.safetensors", trainer.bank.member(k), meta | figures)
    save_policy(run.path / BANK, trainer.bank.state_dict(), meta | {"falls_per_s": trainer.falls.tolist()})


def load_bank(path: Path, env: Env) -> ActorCritic:
    """The bank of a specialists' run folder, or of a bank file."""
    return load_policy(path / BANK if path.is_dir() else path, env)[0]
