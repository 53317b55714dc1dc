"""`koboshi specialists`: all specialists in one masked batch, then each on its own file and the bank as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from koboshi import robots, runs
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.nets.distributed import init_from_environment
from koboshi.policies import ActorCritic
from koboshi.policies.storage import load_policy, load_single, load_weights, policy_meta, save_policy
from koboshi.runs import RunFolder
from koboshi.specialists.assignment import Assignment, assign
from koboshi.specialists.routing import DetectorRouter, OracleRouter, Router, SplitRouter
from koboshi.specialists.training import BankTrainer, MakeRouter, check_divisible, specialist_env_cfg
from koboshi.stages import ranks
from koboshi.stages.detector import load_for
from koboshi.stages.folders import Start, open_run
from koboshi.stages.training import check_devices, train_loop
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import required

BANK = "bank.safetensors"


def bank_assignment(task: TaskCfg) -> Assignment:
    """Which specialist serves which joint."""
    faults, settings = required(task, "faults", task.faults), required(task, "specialists", task.specialists)
    robot = robots.find(task.env.robot)
    return assign(robot, settings.sharing, faults.candidates(robot), settings.cover, settings.kinds)


def train(
    task: TaskCfg,
    healthy_path: Path,
    detector_path: Path | None,
    root: Path,
    name: str | None,
    overrides: list[str],
    start: Start = Start(),  # noqa: B008 (frozen)
) -> RunFolder:
    """Trains the bank, or resumes it.

    A detector switches in `specialists.detector_share` of the environments; in the others, and without one, an oracle
    does, late by chance.
    """
    rank, world = init_from_environment()
    assignment = bank_assignment(task)
    faults, settings = required(task, "faults", task.faults), required(task, "specialists", task.specialists)
    check_divisible(settings, assignment)
    check_devices(settings.agent.trainer.device, task.env.sim.device)
    env = Env(specialist_env_cfg(task.env, faults, assignment, settings))
    healthy = load_single(healthy_path, env)[0]
    make_router = _router(task, env, detector_path, rank)
    trainer = BankTrainer(task.env, faults, settings, healthy, assignment, make_router, env.obs_spec, rank)
    names = [m.name for m in assignment.members]
    if start.load is not None:
        load_weights(start.load, trainer.policy, env, names)
    origin: dict[str, Any] = {
        "healthy": runs.digest(healthy_path),
        "detector": runs.digest(detector_path) if detector_path else None,
    }
    meta = policy_meta(env, task.name, trainer.policy, names)
    meta |= origin | {"seed": settings.agent.trainer.seed, "commit": runs.git_commit()}
    made_from = {"verb": "specialists"} | origin | start.origin()
    rollout = settings.agent.trainer.rollout
    with open_run(task, root, name, overrides, made_from, start.resume) as run:
        train_loop(
            run,
            trainer,
            lambda: trainer.done,
            sum(-(-steps // rollout) for steps in settings.stages),
            rollout * settings.num_envs * world,
            settings.agent.trainer.checkpoint_interval,
            meta,
            f"specialists {task.name}",
            {"stage": "bank/stage", "members": "bank/members", "falls/s": "bank/falls_per_s", "KL": "loss/kl"},
        )
        if ranks.is_first():
            _save_members(run, trainer, assignment, meta)
    return run


def check_detector(task: TaskCfg, given: bool) -> None:
    """KoboshiError where a detector would have nothing to do."""
    share = required(task, "specialists", task.specialists).detector_share
    if given and not share:
        raise KoboshiError(
            "specialists.detector_share=0.0: the detector would switch in no environment; 1 is all of them"
        )


def _router(task: TaskCfg, env: Env, detector_path: Path | None, rank: int) -> MakeRouter:
    """Makes, for some of the members and so many robots, the router that switches to them."""
    settings = required(task, "specialists", task.specialists)
    check_detector(task, detector_path is not None)
    if detector_path is not None:
        model, alarm = load_for(task, detector_path, env.device)

    def make(assignment: Assignment, num_envs: int) -> Router:
        oracle = OracleRouter(assignment, env.robot, task.env.step_dt, settings.switch_delay_s, seed=rank)
        if detector_path is None:
            return oracle
        # The last of each member's environments, so that each of its joints is among them.
        each = num_envs // len(assignment.members)
        place = torch.arange(num_envs, device=env.device) % each
        heard = place >= each - round(settings.detector_share * each)
        return SplitRouter(oracle, DetectorRouter(model, alarm, assignment, env.robot), heard)

    return make


def _save_members(run: RunFolder, trainer: BankTrainer, assignment: Assignment, meta: dict[str, Any]) -> None:
    for k, member in enumerate(assignment.members):
        figures = {"members": [member.name], "falls_per_s": float(trainer.falls[k])}
        save_policy(run.path / "members" / f"{member.name}.safetensors", trainer.policy.member(k), meta | figures)
    save_policy(run.path / BANK, trainer.policy.state_dict(), meta | {"falls_per_s": trainer.falls.tolist()})


def load_bank(path: Path, env: Env) -> ActorCritic:
    """The bank of a specialists' run folder, or of a bank file; on the environment's device."""
    return load_policy(path / BANK if path.is_dir() else path, env)[0]
