"""`koboshi export`: a run or a controller as files that run without torch, checked before they are there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from koboshi import config, robots, runs
from koboshi.bench.rollout import scenario_cfg
from koboshi.deploy.contract import FILE, MODEL, PROGRAM, Contract, check_robot, fingerprint, fingerprints
from koboshi.deploy.program import HEALTHY, Program
from koboshi.deploy.simulation import World
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import RewardTerm, SceneCfg
from koboshi.envs.terms import rewards
from koboshi.errors import KoboshiError
from koboshi.export.contract import contract_of, robot_xml
from koboshi.export.graph import Graph, check_groups, groups_of, to_onnx
from koboshi.faults import KINDS, Fault, Scenario, Scenarios
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import DetectorRouter
from koboshi.stages.folders import task_of
from koboshi.stages.play import load_any
from koboshi.stages.progress import console
from koboshi.tasks import TaskCfg

COMMAND = (0.5, 0.0, 0.0)
BREAKS_AT_S, CHECKED_S, SIMULATED_S = 2.0, 6.0, 1.0
MOST_ACTION_ERROR = 1e-5
MOST_POSE_ERROR = 1e-3
"""Of `qpos` after `SIMULATED_S` in plain MuJoCo, m or rad: contacts make much of the last digit."""


def export(path: Path, folder: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Writes `policy.onnx`, `deploy.yaml` and `robot.xml` to `folder`, all or none; gives what the checks found."""
    if folder.exists() and not folder.is_dir():
        raise KoboshiError(f"{folder} is a file, and a folder is to be written")
    task = config.override(task_of(path), overrides)
    # What was trained on a GPU is exported, and checked, on the CPU.
    sim = replace(task.env.sim, backend="cpu", device="cpu")
    task = replace(task, env=replace(task.env, sim=sim))
    env = Env(_calm(task, BREAKS_AT_S))
    controller, assignment = load_any(path, task)
    check_groups(env.cfg, controller)
    graph = Graph(controller, groups_of(controller, isinstance(controller.router, DetectorRouter)))
    obs = env.reset(0)
    contract = contract_of(env, graph.groups, graph.carried, obs)
    contract["delay_s"] = [steps * task.env.sim.timestep for steps in task.env.actions.delay]
    contract["faults"] = [] if assignment is None else fault_table(assignment)
    model = robot_xml(env)
    contract["model"] = fingerprint(model)
    contract["made"] = {"task": task.name, "commit": runs.git_commit(), "from": path.name, "sha256": runs.digest(path)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as place:
        part = Path(place)
        console.print(f"exporting {path}", highlight=False, soft_wrap=True)
        (part / PROGRAM).write_bytes(to_onnx(graph, obs, fingerprints(contract)))
        (part / MODEL).write_text(model)
        _write(part / FILE, contract)
        controller, _ = load_any(path, task)  # tracing leaves its own tensors in one that was traced
        found = {
            "action_error": action_error(env, controller, Program(part)),
            "pose_error": pose_error(task, controller, part),
        }
        _check("the program's actions differ from torch's", found["action_error"], MOST_ACTION_ERROR)
        _check("the loop in plain MuJoCo differs from training", found["pose_error"], MOST_POSE_ERROR)
        _check_refusals(contract, part)
        _write(part / FILE, contract | {"checked": found})
        folder.mkdir(exist_ok=True)
        (folder / FILE).unlink(missing_ok=True)
        for name in (PROGRAM, MODEL, FILE):  # the contract last: without it the rest is nothing
            shutil.move(part / name, folder / name)
    return found


def fault_table(assignment: Assignment) -> list[dict[str, Any]]:
    """Each member, in the order in which a program counts who acts: its name, the joints and kinds of fault that it
    serves, and the joints that it sees through the mirror."""
    return [
        {"name": m.name, "joints": [*m.joints], "kinds": [*(m.kinds or KINDS)], "mirrored": [*m.mirrored]}
        for m in assignment.members
    ]


def _write(path: Path, contract: Contract) -> None:
    path.write_text(yaml.safe_dump(contract, sort_keys=False, default_flow_style=None, width=120))


def _check(what: str, error: float, most: float) -> None:
    if not error <= most:
        raise KoboshiError(f"{what} by {error:.2g}, more than {most:g}; nothing was written")


def _calm(task: TaskCfg, breaks_at: float | None) -> EnvCfg:
    """One robot as a deployed one is: no noise, nothing random, no delay of its own, on level ground, one command; and
    where anything may break, the first joint that does dies at `breaks_at`."""
    robot = robots.find(task.env.robot)
    faults: tuple[Fault, ...] = ()
    if task.faults is not None and breaks_at is not None:
        faults = (Fault(robot.fault_candidates[0], "torque_loss", onset_s=breaks_at),)
    cfg = scenario_cfg(task.env, Scenarios(robot.name, 1, (Scenario(faults, COMMAND, 0.0),)), "nominal")
    return replace(
        cfg,
        scene=SceneCfg(contacts=cfg.scene.contacts),
        observations={name: replace(group, noise=False) for name, group in cfg.observations.items()},
        events={},
        rewards={"alive": RewardTerm(rewards.alive, 0.0)},
        terminations={},
    )


@torch.no_grad()
def action_error(env: Env, controller: Controller, program: Program) -> float:
    """The greatest difference of an action, or of a probability, told the same for `CHECKED_S`. KoboshiError where
    others act, or of a bank nobody does."""
    obs, errors, others = env.reset(0), [], False
    state, reset = controller.initial_state(1, env.device), torch.ones(1, dtype=torch.bool)
    low, high = (torch.tensor(side) for side in (env.action_space.low, env.action_space.high))
    for _ in range(round(CHECKED_S / env.step_dt)):
        told = {name: x.cpu().numpy() for name, x in obs.items()}
        decision, state = controller.act(obs, reset, state)
        member, probability = program.decide(told)
        mine = decision.action.clamp(low, high)[0].double().numpy()
        errors.append(np.abs(mine - program.action).max())
        believed = decision.route.belief.probability[0].double().numpy()
        errors.append(np.abs(believed - probability).max(initial=0.0))
        if member != int(decision.route.member[0]):
            raise KoboshiError("the program lets another act than torch does; nothing was written")
        others |= member != HEALTHY
        obs, reset = env.step(decision.action).obs, torch.zeros(1, dtype=torch.bool)
    if controller.bank is not None and not others:
        raise KoboshiError("no specialist acted in the check, which so says nothing of them; nothing was written")
    return float(np.max(errors))  # NaN where one is


@torch.no_grad()
def pose_error(task: TaskCfg, controller: Controller, folder: Path) -> float:
    """The greatest difference of a position (m, rad) after `SIMULATED_S`: the training environment under torch, and the
    exported loop in plain MuJoCo."""
    env, program = Env(_calm(task, None)), Program(folder)
    world = World(folder, program)
    obs, state = env.reset(0), controller.initial_state(1, env.device)
    reset, decimation = torch.ones(1, dtype=torch.bool), env.cfg.decimation
    for _ in range(round(SIMULATED_S / env.step_dt)):
        decision, state = controller.act(obs, reset, state)
        obs, reset = env.step(decision.action).obs, torch.zeros(1, dtype=torch.bool)
        world.step([program.step(world.senses(COMMAND)).targets] * decimation)
    return float(np.abs(env.qpos[0].cpu().double().numpy() - world.data.qpos).max())


def _check_refusals(contract: Contract, folder: Path) -> None:
    """That what must be refused is: another period, order of joints, or layout."""
    joints, dt = contract["joints"], contract["control_dt"]
    group, about = next(iter(contract["observations"].items()))
    layout = contract | {"observations": contract["observations"] | {group: about | {"base": "another"}}}
    for what, refuse in (
        ("period", lambda: check_robot(contract, joints, 2 * dt)),
        ("order of joints", lambda: check_robot(contract, [*joints[1:], joints[0]], dt)),
        ("layout", lambda: _load_as(layout, folder)),
    ):
        try:
            refuse()
        except KoboshiError:
            continue
        raise KoboshiError(f"another {what} would not be refused; nothing was written")


def _load_as(contract: Contract, folder: Path) -> None:
    """The folder's program beside another contract."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        shutil.copy(folder / PROGRAM, place)
        _write(Path(place) / FILE, contract)
        Program(Path(place))
